"""A run: trained, attacked in every round, and drawn; and one that goes on."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from fedsim.api.folders import new_folder
from fedsim.api.reports import draw
from fedsim.config import Config, Engine
from fedsim.core.errors import BadRecording
from fedsim.core.rng import threads
from fedsim.federation import engines
from fedsim.federation.engines import Started
from fedsim.federation.foreign import is_foreign
from fedsim.federation.grid import SimulationGrid
from fedsim.federation.progress import Round
from fedsim.federation.rehearsal import rehearse
from fedsim.federation.rounds import federate
from fedsim.federation.training_grid import OnClient
from fedsim.run.glance import glance, line_of
from fedsim.run.marks import failing
from fedsim.run.prepare import Plan, prepare, with_versions
from fedsim.run.run_folder import REPORT, RunFolder
from fedsim.track.installed import check_installed
from fedsim.track.tracked import tracked


@dataclass(frozen=True, init=False, repr=False)
class Run:
    """A finished, running or killed run on disk; in a notebook it draws itself.

    Args:
        path: Its folder.

    Example:
        `Run("runs/first").ledger().to_pandas()`
    """

    path: Path

    def __init__(self, path: Path | str) -> None:
        object.__setattr__(self, "path", Path(path))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {line_of(glance(self.path))})"

    def _repr_html_(self) -> str:
        from fedsim.report.notebook import notebook_html

        return notebook_html(glance(self.path))

    def ledger(self) -> pa.Table:
        """Return the leakage ledger of the finished rounds."""
        return RunFolder(self.path).ledger()

    def metrics(self) -> pa.Table:
        """Return utility, costs and failures of the finished rounds."""
        return RunFolder(self.path).metrics()

    def config(self) -> Config:
        """Return the run's resolved config."""
        return RunFolder(self.path).config

    @property
    def report(self) -> Path:
        """The self-contained HTML report."""
        return self.path / REPORT


def run(
    config: Config | None = None,
    out: Path | str | None = None,
    *,
    on_round: Callable[[Round], None] = lambda _: None,
    on_plan: Callable[[Plan], None] = lambda _: None,
    on_client: OnClient = lambda *_: None,
) -> Run:
    """Train a federation, attack it in every round, and write the run folder and its report.

    Args:
        config: What to run; the defaults train on scikit-learn's digits, offline.
        out: A new folder; by default one under `runs/`.
        on_round: Called after every round.
        on_plan: Called before anything is written.
        on_client: Called with every client's reply: the round, how many clients have replied in
            it, and how many were asked.

    Raises:
        ConfigError: The config is wrong; nothing has been written.
        RunStopped: The run ended early; `resume` may go on. In the first round nothing is left.
    """
    config = config or Config()
    check_installed(config.track)
    plan = prepare(with_versions(config))
    if plan.config.check:
        from fedsim.check.names import check_names

        names = {attack.family: [attack.name] for attack in plan.attacks}
        check_names("check.fail_if", plan.config.check.rules, names)
    on_plan(plan)
    path = Path(out) if out else new_folder(plan.config)
    rehearse(plan)
    with _started(plan.config.engine) as engine:
        folder = RunFolder.create(path, plan.config, plan.federated.tokeniser)
        return _go(plan, folder, engine, on_round, on_client)


def resume(
    out: Path | str,
    *,
    allow: Iterable[str] = (),
    on_round: Callable[[Round], None] = lambda _: None,
    on_plan: Callable[[Plan], None] = lambda _: None,
    on_client: OnClient = lambda *_: None,
) -> Run:
    """Go on with a run after its last finished round, to the same bits as without the stop.

    Args:
        out: Its folder.
        allow: Modules, paths and addresses that its config may use, if you did not write it.
        on_round: Called after every round.
        on_plan: Called before anything is written.
        on_client: Called with every client's reply: the round, how many clients have replied in
            it, and how many were asked.

    Raises:
        BadRecording: There is no run, its files are damaged, or its config names what is not
            allowed.
        RunStopped: The run ended early again.
    """
    folder = RunFolder(Path(out))
    if is_foreign(folder.path):
        raise BadRecording(
            f"--out: must be a run of fedsim's own to go on with, got {folder.path} of another app"
        )
    folder.check_trusted(allow)
    check_installed(folder.config.track)
    plan = prepare(folder.config)
    on_plan(plan)
    with _started(plan.config.engine) as engine:
        return _go(plan, folder, engine, on_round, on_client)


def _go(
    plan: Plan,
    folder: RunFolder,
    engine: Started,
    on_round: Callable[[Round], None],
    on_client: OnClient,
) -> Run:
    config = plan.config
    with folder.locked(), failing(folder.path), tracked(config.track, folder) as track:

        def show(done: Round) -> None:
            track(done.number)
            on_round(done)

        start = folder.restore()
        grid = SimulationGrid(
            config.federation.clients,
            engine.execute,
            folder.truth.absolute(),
            start.clients if start else None,
        )
        federate(
            plan,
            grid,
            folder,
            client_of=grid.client_of,
            client_states=grid.client_states,
            alone=engine.alone,
            start=start,
            on_round=show,
            on_client=on_client,
        )
        draw([folder], folder.path / REPORT)
    return Run(folder.path)


@contextmanager
def _started(engine: Engine) -> Iterator[Started]:
    """Start the engine, before anything is written, with Flower's own log kept quiet."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with threads(engine.threads), engines.start(engine) as started:
        yield started
