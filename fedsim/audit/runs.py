"""The runs of an audited mechanism with and without one canary: in chunks of files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adversary.auditing.canaries import Canary
from adversary.auditing.features import Features
from adversary.auditing.trials import Scores, Trials
from fedsim.audit.batches import Neighbours, trained_of
from fedsim.audit.canary_names import CHOSEN
from fedsim.audit.features import Measures, features_of
from fedsim.audit.last_model import canary_loss
from fedsim.audit.neighbours import craft, neighbours
from fedsim.audit.setup import Setup
from fedsim.audit.statistic import Statistic, statistic
from fedsim.core.files import TensorFile, save_tensors

CHUNK = 500  # runs in one file
CALIBRATION = 100  # runs of each hypothesis, to see where the middle is
SURE = 4.0  # standard errors from where it was expected, until a middle is believed to be elsewhere


class Chunk(NamedTuple):
    """Some runs: of which hypothesis (1 with the canary), which ones, and how many."""

    having: int
    name: int | str
    size: int


@dataclass(frozen=True, eq=False, kw_only=True)
class CanaryRuns:
    """All runs with and without one canary.

    Attributes:
        setup: What is audited.
        setting: The name of its config.
        canary: Its name.
        out: Folder of the audit.
        neighbours: The two data sets.
        statistic: What is looked at in an upload.
    """

    setup: Setup
    setting: str
    canary: str
    out: Path
    neighbours: Neighbours
    statistic: Statistic

    @property
    def measures(self) -> Measures:
        """What else is measured of an upload, of every tensor."""
        sizes = {name: value.numel() for name, value in trained_of(self.neighbours.model).items()}
        only_last = self.setup.config.audit.view == "last" and not self.neighbours.constant
        return Measures(self.statistic, sizes, canary_loss(self.neighbours) if only_last else None)

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
        """Run a chunk and write what is measured of it; its coins are its own, whoever runs it."""
        config = self.setup.config
        names = (config.seed, self.setting, self.canary, chunk.having, chunk.name)
        uploads = self.setup.observed.uploads(self.neighbours, chunk.having, chunk.size, *names)
        save_tensors(self.path(chunk), self.measures.measured(uploads), {"of": self.canary})

    def trials(self) -> Trials:
        """Return the scores without and with the canary, whose middle is expected at 0.

        They are turned round, or moved, only if runs of the calibration, which certify nothing,
        say so: as they do of a mechanism that adds the same noise every time.
        """
        scores = {chunk: TensorFile(self.path(chunk))["scores"].numpy() for chunk in self.chunks}
        without, having = (
            np.concatenate(
                [
                    part
                    for chunk, part in scores.items()
                    if chunk.having == which and chunk.name != "calibration"
                ]
            )
            for which in (0, 1)
        )
        calibration = [part for chunk, part in scores.items() if chunk.name == "calibration"]
        middle, sign = _middle(*calibration)
        return Trials(sign * (without - middle), sign * (having - middle))

    def features(self) -> Features:
        """Return the features without and with the canary, of the runs of `trials`."""
        without, having = (
            [
                dict(TensorFile(self.path(chunk)))
                for chunk in self.chunks
                if chunk.having == which and chunk.name != "calibration"
            ]
            for which in (0, 1)
        )
        return features_of(self.measures, without, having)


def canary_runs(setup: Setup, setting: str, canary: str, out: Path) -> CanaryRuns:
    """Return the runs of a canary, which is crafted now unless it has been."""
    record = None if canary in CHOSEN else _record(setup, setting, canary, out)
    pair = neighbours(setup, canary, record)
    return CanaryRuns(
        setup=setup,
        setting=setting,
        canary=canary,
        out=out,
        neighbours=pair,
        statistic=statistic(setup.observed, pair),
    )


def _record(setup: Setup, setting: str, name: str, out: Path) -> Canary:
    path = out / "canaries" / f"{setting}-{name}.safetensors"
    if path.exists():
        file = TensorFile(path)
        return Canary(
            name=name,
            inputs=file["inputs"],
            label=file["label"],
            **json.loads(file.metadata["moves"]),
        )
    canary = craft(setup, name)
    metadata = {"moves": json.dumps({"apart": canary.apart, "mean": canary.mean})}
    tensors = {"inputs": canary.inputs.contiguous(), "label": canary.label.contiguous()}
    save_tensors(path, tensors, metadata)
    return canary


def _middle(without: Scores, having: Scores) -> tuple[float, float]:
    """Return where the middle between two hypotheses is, and which way the scores point."""
    middle, apart = (without.mean() + having.mean()) / 2, having.mean() - without.mean()
    error = float(np.sqrt(without.var() / len(without) + having.var() / len(having)))
    sign = -1.0 if apart < -SURE * error else 1.0
    return (float(middle) if abs(middle) > SURE * error / 2 else 0.0), sign
