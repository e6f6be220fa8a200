"""The same things as the command line, as functions for a notebook."""

import importlib.metadata
import logging
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch

from fedsim import __version__, engines
from fedsim.config import Config, Part
from fedsim.engines.grid import SimulationGrid
from fedsim.errors import BadRecording, ConfigError
from fedsim.report import write_report
from fedsim.run_folder import REPORT, RunFolder
from fedsim.server_app import Round, attack_round, federate, prepare
from fedsim.types import Leak
from strategies.tape import recorded_rounds


@dataclass(frozen=True)
class Run:
    """A finished, running or killed run on disk."""

    path: Path

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
) -> Run:
    """Train a federation, attack it in every round, and write the run folder and its report.

    Args:
        config: What to run; the defaults train on scikit-learn's digits, offline.
        out: A new folder; by default one under `runs/`.
        on_round: Called after every round.

    Raises:
        ConfigError: The config is wrong; nothing has been written.
        RunStopped: The run ended early; `resume` may go on.
    """
    config = config or Config()
    config = config.model_copy(update={"versions": _versions()})
    plan = prepare(config)
    folder = RunFolder.create(Path(out) if out else new_folder(config), config)
    return _go(plan, folder, on_round)


def resume(out: Path | str, *, on_round: Callable[[Round], None] = lambda _: None) -> Run:
    """Go on with a run after its last finished round, to the same bits as without the stop.

    Args:
        out: Its folder.
        on_round: Called after every round.

    Raises:
        BadRecording: There is no run, or its files are damaged.
        RunStopped: The run ended early again.
    """
    folder = RunFolder(Path(out))
    return _go(prepare(folder.config), folder, on_round)


def attack(
    recording: Path | str,
    attacks: Sequence[Part],
    *,
    on_round: Callable[[int, int], None] = lambda *_: None,
) -> pa.Table:
    """Attack a recording without training, and put the rows into its ledger.

    Args:
        recording: A run folder.
        attacks: Names and options; their earlier rows are replaced.
        on_round: Called with rounds done and in all.

    Returns:
        The new rows.

    Raises:
        BadRecording: A file is missing, damaged or foreign.
        ConfigError: An attack's name or option is wrong.
    """
    folder = RunFolder(Path(recording))
    plan = prepare(folder.config.model_copy(update={"attack": tuple(attacks)}))
    rounds = recorded_rounds(folder.path)
    if not rounds:
        raise BadRecording(f"{folder.path}: must hold recorded rounds, got none")
    leaks: list[Leak] = []
    with _one_thread(plan.config):
        for done, round_ in enumerate(rounds, start=1):
            rows, _, guesses = attack_round(plan, folder, round_)
            leaks += rows
            folder.write_guesses(round_, guesses)
            on_round(done, len(rounds))
    return folder.replace_attacks({part.name for part in attacks}, leaks)


def report(runs: Iterable[Path | str], out: Path | str | None = None) -> Path:
    """Draw one run, or compare several, into a self-contained HTML file.

    Args:
        runs: Run folders.
        out: Where to; by default `report.html` in the first.

    Raises:
        BadRecording: A folder is no run.
    """
    folders = [RunFolder(Path(path)) for path in runs]
    target = Path(out) if out else folders[0].path / REPORT
    write_report(folders, target)
    return target


def new_folder(config: Config) -> Path:
    """Return a folder under `runs/` that does not exist yet, named after the run."""
    parts = (config.data.name, config.model.name, config.federation.strategy)
    name = "-".join(part.replace(":", ".").replace("/", ".") for part in parts)
    candidates = (Path("runs") / (name + (f"-{i}" if i > 1 else "")) for i in range(1, 10**6))
    return next(path for path in candidates if not path.exists())


def newest_unfinished() -> Path:
    """Return the folder under `runs/` that was started last and has rounds left.

    Raises:
        ConfigError: There is none.
    """
    found = []
    for path in Path("runs").glob("*/config.toml"):
        folder = RunFolder(path.parent)
        done = max(folder.finished_rounds, default=-1)
        if done < folder.config.federation.rounds:
            found.append((path.stat().st_mtime, path.parent))
    if not found:
        raise ConfigError(
            "--resume: must find an unfinished run under runs/, got none; name it with --out"
        )
    return max(found)[1]


def _go(plan, folder: RunFolder, on_round: Callable[[Round], None]) -> Run:
    _quiet()
    config = plan.config
    start = folder.restore()
    with _one_thread(config), engines.start(config) as execute:
        grid = SimulationGrid(
            config.federation.clients, execute, folder.truth.absolute(),
            start.clients if start else None,
        )  # fmt: skip
        federate(
            plan, grid, folder, client_of=grid.client_of, client_states=grid.client_states,
            start=start, on_round=on_round,
        )  # fmt: skip
    write_report([folder], folder.path / REPORT)
    return Run(folder.path)


class _one_thread:
    """Use the config's number of threads inside the block: sums depend on it."""

    def __init__(self, config: Config) -> None:
        self.threads = config.engine.threads

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.threads)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)


def _quiet() -> None:
    """Flower logs every round at INFO; what matters of it is told by the run itself."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    logging.getLogger("flwr").setLevel(logging.ERROR)


def _versions() -> dict[str, str]:
    names = ("flwr", "torch", "numpy")
    return {
        "fedsim": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }
