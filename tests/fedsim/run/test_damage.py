import os
import random
import resource
import shutil
from collections import Counter

import pytest

from fedsim import api
from fedsim.audit.recorded import recorded
from fedsim.config import Part
from fedsim.core.errors import FedsimError, RunStopped
from fedsim.run.run_folder import RunFolder
from tests.builders import rows_without_seconds, small_config
from tests.fedsim.run.damage import accident, forgery

CASES = int(os.environ.get("FEDSIM_DAMAGED", "20"))  # of each seed; 500 take an hour of CPU
MOST_ROUNDS = 4
SMALL = small_config(
    data={"name": "tests.builders:toy_dataset"},
    model={"hidden": 4},
    federation={"rounds": 3, "clients": 3},
    defense=[{"name": "tests.builders:sticky"}],
    attack=["llg"],
    auxiliary={"candidates": 0},
)


def stop_after(count):
    """Stop a run after some rounds, whatever its config says."""
    left = [count]

    def on_round(_):
        left[0] -= 1
        if left[0] < 0:
            raise RunStopped("enough")

    return on_round


DOORS = {
    "resume": lambda run: api.resume(run, on_round=stop_after(MOST_ROUNDS)),
    "attack": lambda run: api.attack(run, [Part(name="llg")]),
    "audit": recorded,
    "report": lambda run: api.report([run]),
}
WEIGHTS = (30, 50, 15, 5)


def outcome(run):
    """Return what a run says in the end: the ledger, and the model."""
    folder = RunFolder(run)
    params = {name: value.tolist() for name, value in folder.final_params().items()}
    return rows_without_seconds(folder.ledger()), params


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped after two of three rounds."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(RunStopped, match="enough"):
        api.run(SMALL, path, on_round=stop_after(3))
    return path


@pytest.fixture(scope="module")
def right(stopped, tmp_path_factory):
    """What each door leaves of the undamaged run."""
    outcomes = {}
    for name, door in DOORS.items():
        run = tmp_path_factory.mktemp("right") / "run"
        shutil.copytree(stopped, run)
        door(run)
        outcomes[name] = outcome(run)
    return outcomes


@pytest.mark.slow
@pytest.mark.contract
@pytest.mark.parametrize("seed", range(10))
def test_damage_is_refused_or_changes_nothing(seed, stopped, right, tmp_path, monkeypatch):
    monkeypatch.setattr("fedsim.api.runs._started", started)
    monkeypatch.chdir(tmp_path)
    draw, counts, sentences = random.Random(seed), Counter(), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(CASES):
        run, outside = tmp_path / "run", tmp_path / "outside"
        shutil.copytree(stopped, run)
        outside.mkdir()
        forged = case % 2 == 1
        done = forgery(run, draw) if forged else accident(run, draw, outside)
        kept = {path: path.lstat().st_mtime_ns for path in outside.rglob("*")}
        [name] = draw.choices(list(DOORS), WEIGHTS)
        try:
            DOORS[name](run)
            counts["forged, read" if forged else "harmless"] += 1
            assert forged or outcome(run) == right[name], (name, done)
        except FedsimError as error:
            sentences.append(str(error))
            counts["refused"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {case}: {name} after {done}") from error
        assert kept == {path: path.lstat().st_mtime_ns for path in outside.rglob("*")}, done
        assert {path.name for path in tmp_path.iterdir()} <= {"run", "outside"}, done
        shutil.rmtree(run)
        shutil.rmtree(outside)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(dict(counts), f"{grown / 1024:.0f} MiB")
    assert grown < 300 * 1024
    assert counts["refused"] > CASES / 4
    assert all(0 < len(sentence) <= 1000 for sentence in sentences), max(sentences, key=len)


def started(engine):
    """Start no other process, whatever the config says."""
    from fedsim.config import Engine
    from fedsim.federation import engines

    return engines.start(Engine())
