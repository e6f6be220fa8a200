"""The runs of an audited mechanism: in chunks that are kept, here or on Ray."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from adversary.auditing.canaries import Canary
from fedsim import config as configs
from fedsim.audit.mechanism import Neighbours, Statistic, statistic
from fedsim.audit.setup import CHOSEN, Setup, craft, neighbours, prepare
from fedsim.config import Engine
from fedsim.core.errors import RunStopped, one_line
from fedsim.core.files import TensorFile, save_tensors

CHUNK = 500  # runs in one file
CALIBRATION = 100  # runs of each hypothesis, to see where the middle is
SURE = 4.0  # standard errors from where it was expected, until a middle is believed to be elsewhere

Scores = NDArray[np.float64]


class Chunk(NamedTuple):
    """Some runs: of which hypothesis (1 with the canary), which ones, and how many."""

    having: int
    name: int | str
    size: int


@dataclass(frozen=True, eq=False)
class Trials:
    """All runs with and without one canary.

    Attributes:
        setting: What the config is called.
        canary: Its name.
        out: Folder of the audit.
        record: The canary itself; None where its gradient is chosen.
        both: The two data sets.
        score: What is looked at in an upload.
    """

    setup: Setup
    setting: str
    canary: str
    out: Path
    record: Canary | None
    both: Neighbours
    score: Statistic

    @property
    def chunks(self) -> list[Chunk]:
        """All of them, the calibration's first."""
        trials = self.setup.config.audit.trials
        sizes = [min(CHUNK, trials - start) for start in range(0, trials, CHUNK)]
        named: list[tuple[int | str, int]] = [("calibration", CALIBRATION), *enumerate(sizes)]
        return [Chunk(having, name, size) for name, size in named for having in (0, 1)]

    def path(self, chunk: Chunk) -> Path:
        """Return the file of a chunk's scores."""
        folder = self.out / "scores" / self.setting / self.canary
        return folder / f"{('without', 'having')[chunk.having]}-{chunk.name}.safetensors"

    def is_done(self, chunk: Chunk) -> bool:
        """Return whether a chunk has been run."""
        path = self.path(chunk)
        return path.exists() and len(TensorFile(path)["scores"]) == chunk.size

    def run(self, chunk: Chunk) -> None:
        """Run a chunk and keep its scores; its coins are its own, whoever runs it."""
        names = (self.setup.config.seed, self.setting, self.canary, chunk.having, chunk.name)
        uploads = self.setup.mechanism.uploads(self.both, chunk.having, chunk.size, *names)
        found = self.score.scores(uploads, self.setup.config.audit.rounds)
        save_tensors(self.path(chunk), {"scores": torch.from_numpy(found)}, {"of": self.canary})

    def scores(self) -> tuple[Scores, Scores]:
        """Return the scores without and with the canary, whose middle is expected at 0.

        They are turned round, or moved, only where runs of the calibration, which certify nothing,
        say so: as they do of a mechanism that adds the same noise every time.
        """
        read = {chunk[:2]: TensorFile(self.path(chunk))["scores"].numpy() for chunk in self.chunks}
        parts = [
            np.concatenate([found for (which, name), found in read.items()
                            if which == having and name != "calibration"])
            for having in (0, 1)
        ]  # fmt: skip
        middle, sign = _middle(read[0, "calibration"], read[1, "calibration"])
        without, having = (sign * (part - middle) for part in parts)
        return without, having


def trials(setup: Setup, setting: str, canary: str, out: Path) -> Trials:
    """Return the runs of a canary, which is found now unless it has been."""
    record = None if canary in CHOSEN else _record(setup, setting, canary, out)
    both = neighbours(setup, canary, record)
    return Trials(setup, setting, canary, out, record, both, statistic(setup.mechanism, both))


def run_all(
    of: Trials, run: Path | None, engine: Engine | None, on_runs: Callable[[str, int, int], None]
) -> None:
    """Do the runs that have not been done.

    Args:
        of: Which.
        run: The recording whose weights are audited, if it is one.
        engine: Ray; None to do them here.
        on_runs: Called with the canary, runs done and runs in all.

    Raises:
        RunStopped: A process died, or a user's mechanism failed.
    """
    if engine is not None:
        _on_ray(of, run, engine)
    total, done = sum(chunk.size for chunk in of.chunks), 0
    for chunk in of.chunks:
        if not of.is_done(chunk):
            of.run(chunk)
        done += chunk.size
        on_runs(of.canary, done, total)


def _record(setup: Setup, setting: str, name: str, out: Path) -> Canary:
    path = out / "canaries" / f"{setting}-{name}.safetensors"
    if path.exists():
        kept = TensorFile(path)
        return Canary(name, kept["inputs"], **json.loads(kept.metadata["told"]))
    found = craft(setup, name)
    told = {"label": found.label, "apart": found.apart, "mean": found.mean}
    save_tensors(path, {"inputs": found.inputs.contiguous()}, {"told": json.dumps(told)})
    return found


def _middle(without: Scores, having: Scores) -> tuple[float, float]:
    """Return where the middle between two hypotheses is, and which way the scores point."""
    middle, apart = (without.mean() + having.mean()) / 2, having.mean() - without.mean()
    error = float(np.sqrt(without.var() / len(without) + having.var() / len(having)))
    sign = -1.0 if apart < -SURE * error else 1.0
    return (float(middle) if abs(middle) > SURE * error / 2 else 0.0), sign


def _on_ray(of: Trials, run: Path | None, engine: Engine) -> None:
    """Let Ray tasks do the chunks that are left, a share each."""
    from fedsim.core.ray_jobs import ray_tasks

    left = [chunk for chunk in of.chunks if not of.is_done(chunk)]
    workers = min(engine.workers or 2, len(left))
    shares = {f"share {place + 1}": left[place::workers] for place in range(workers)}
    text, out = configs.to_json(of.setup.config), of.out.absolute()
    where = None if run is None else run.absolute()
    told = (text, where, of.setting, of.canary, out)
    jobs = {name: (*told, share) for name, share in shares.items()}
    for name, reason in ray_tasks(_share, jobs, address=engine.address, workers=engine.workers):
        if reason is not None:
            raise RunStopped(f"canary {of.canary}, {name}: {reason}")


def _share(
    text: str, run: Path | None, setting: str, canary: str, out: Path, chunks: list[Chunk]
) -> str | None:
    """Do some chunks in a process of their own; return why it failed."""
    try:
        config = configs.parse_json(text)
        torch.set_num_threads(config.engine.threads)
        of = trials(prepare(config, run), setting, canary, out)
        for chunk in chunks:
            of.run(chunk)
    except Exception as error:  # said where the audit runs
        return one_line(error)
    return None
