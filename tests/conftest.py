"""Settings of the whole test run: one thread, kinds of tests, and what a test may cost."""

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import pace, typed  # noqa: F401  # jaxtyping takes `typed` from the package

# How long an example takes says something of the machine's other work, nothing of the code; and the
# same commit gives the same examples everywhere. `--hypothesis-profile=search` looks for new ones.
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fedsim", derandomize=True, **PATIENT)
settings.register_profile("search", max_examples=1000, **PATIENT)
settings.load_profile("fedsim")
# Else Hypothesis also draws from the constants of all modules that the worker happened to import.
with suppress(ImportError):
    from hypothesis.internal.conjecture import providers

    providers.is_local_module_file = lambda _: False

# Containers often forbid Python to write bytecode; then every process compiles all packages anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Tests read lines for the user's shell; those are others under `uv run pytest`.
os.environ.pop("UV_RUN_RECURSION_DEPTH", None)

# Ray's workers run at nice 15, and starve beside a test worker on each core.
os.environ.setdefault("RAY_worker_niceness", "0")

ROOT = Path(__file__).parent
KINDS = ("worked", "twin", "theorem", "contract", "paper", "e2e")  # as in CONTRIBUTING
PLACES = {"contracts": "contract", "papers": "paper", "deploy": "e2e", "test_end_to_end.py": "e2e"}
MOST = 5.0  # CPU-seconds of a test that does not say which kind it is


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """Return runs that are made once for all tests and all workers."""
    from tests.recordings import Recordings  # not before jaxtyping's hook is in place

    return Recordings(pace.shared(tmp_path_factory) / "recordings")


@pytest.fixture(scope="session", autouse=True)
def remembered(tmp_path_factory):
    """Let runs of tests be remembered beside them, not in the home of whoever runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(pace.shared(tmp_path_factory) / "state")


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without their report, which takes six times as long as a small run."""
    monkeypatch.setattr("fedsim.report.run.write_report", lambda *_, **__: None)


@pytest.fixture(scope="session")
def patience(tmp_path_factory) -> pace.Patience:
    """Return how long to wait for processes on this machine."""
    return pace.Patience(pace.shared(tmp_path_factory))


def pytest_configure() -> None:
    """Take one thread, as a run does (`engine.threads = 1`).

    Small tensors are slower on several, by ten times and more where the machine has other work.
    """
    import torch  # once bytecode may be written

    torch.set_num_threads(1)


def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are cores: one of them mostly waits for processes."""
    return min((os.cpu_count() or 1) + 1, 4)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a place or `@given` tells of a test's kind, and what one worker makes once."""
    for item in items:
        if shares_a_module_fixture(item) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(ROOT).as_posix()))
        place = item.path.relative_to(ROOT).parts[0]
        if place in PLACES:
            item.add_marker(PLACES[place])
        if hasattr(getattr(item, "obj", None), "hypothesis"):
            item.add_marker("theorem")
    # Processes of others mostly wait: they begin first, and other tests fill the time.
    items.sort(key=lambda item: not any(map(item.get_closest_marker, ("deploy", "e2e"))))


def shares_a_module_fixture(item: pytest.Item) -> bool:
    """Return whether a test takes a fixture that is made once for its module."""
    fixtures = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009
    return any(one.scope == "module" for made in fixtures.values() for one in made)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Judge what a test costs by the CPU time of this process."""
    begun = pace.cpu_seconds()
    result = yield
    judge(item, pace.cpu_seconds() - begun)
    return result


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose packages are not installed."""
    names = [name for mark in item.iter_markers("extra") for name in mark.args]
    if absent := [name for name in names if find_spec(name) is None]:
        pytest.skip(f"{absent[0]} is not installed (uv sync --group frameworks)")


def judge(item: pytest.Item, spent: float) -> None:
    """Fail a test that costs too much and does not say which kind it is."""
    if spent <= MOST or any(item.get_closest_marker(kind) for kind in (*KINDS, "slow")):
        return
    most = MOST * pace.slowness()
    if spent > most:
        pytest.fail(
            f"cost: must be at most {most:.1f} s of CPU on this machine now without a marker "
            f"({', '.join(KINDS)}), got {spent:.1f} s",
            pytrace=False,
        )
