"""What became of one attack in one run, over rounds: its curves and means."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from adversary.attacks import is_baseline
from adversary.grading.families import FAMILIES
from fedsim.core.units import beyond_blind, name_of, scale_of, title_of
from fedsim.report.intervals import Gap, gap_of
from fedsim.run.ledger import over_clients
from fedsim.run.outcomes import Answers, answers_of


@dataclass(frozen=True, kw_only=True)
class Series:
    """One metric of one attack over rounds.

    Attributes:
        rounds: The rounds in which it was graded.
        mean: Over the clients of each round; `low` and `high` are the 10th and 90th percentile.
        blind: The same mean for the best guess without an update.
        value: Mean over all clients and rounds together, as in the ledger; `blind_value` too.
    """

    rounds: NDArray[np.int64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    blind: NDArray[np.float64]
    value: float
    blind_value: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One attack in one run.

    Attributes:
        attack: As the config calls it.
        adaptive: Whether the attacker knows the clients' defense.
        metric: The first of its family's metrics that was graded; `main` is its series.
        skills: The ledger's skill, where the family has it.
        means: Mean of every metric over all clients and rounds.
        answers: What became of it on all updates; means are over those that it answered.
        order: Its place in the config.
        gap: How far each update's main metric is above blind; None without any blind guess.
    """

    attack: str
    adaptive: bool
    family: str
    metric: str
    main: Series
    skills: Series | None
    means: Mapping[str, float]
    milliseconds: float
    answers: Answers
    order: int
    gap: Gap | None = None

    @property
    def skill(self) -> float:
        """The ledger's skill; without it, what the attack finds of what blind leaves open."""
        if self.skills is not None:
            return self.skills.value
        return beyond_blind(self.metric, self.main.value, self.main.blind_value)

    @property
    def baseline(self) -> bool:
        """Whether it looks at no update."""
        return is_baseline(self.attack)

    @property
    def title(self) -> str:
        """What it is called in tables and pictures."""
        return title_of(self.attack, adaptive=self.adaptive)

    @property
    def metric_name(self) -> str:
        """What its metric is called in a sentence and a table's head."""
        return name_of(self.metric)

    @property
    def l1(self) -> float | None:
        """The label papers' error L1/2N, which is 1 − ASR."""
        return 1 - self.means["asr"] if self.family == "label" and "asr" in self.means else None


def curve_of(rows: pa.Table, order: int = 0) -> Curve | None:
    """Return one attack's curve from its ledger rows, or None where nothing could be graded."""
    graded = graded_rows(rows)
    metrics = graded["metric"].unique().to_pylist()
    if not metrics:
        return None
    family = graded["family"][0].as_py()
    ranked = FAMILIES[family].ranked if family in FAMILIES else metrics
    main = next((metric for metric in ranked if metric in metrics), metrics[0])
    parts = {name: graded.filter(pc.equal(graded["metric"], name)) for name in metrics}
    return Curve(
        attack=graded["attack"][0].as_py(),
        adaptive=graded["adaptive"][0].as_py(),
        family=family,
        metric=main,
        main=_series(parts[main]),
        skills=_series(parts["skill"]) if "skill" in parts else None,
        means={name: float(np.mean(part["value"].to_numpy())) for name, part in parts.items()},
        milliseconds=1000 * float(np.mean(parts[main]["seconds"].to_numpy())),
        answers=answers_of(rows)[0],
        order=order,
        gap=gap_of(parts[main], scale_of(main)),
    )


def graded_rows(rows: pa.Table) -> pa.Table:
    """Return the rows with a finite value that means are taken of."""
    return over_clients(rows.filter(pc.fill_null(pc.is_finite(rows["value"]), fill_value=False)))


def _series(rows: pa.Table) -> Series:
    values, blinds = rows["value"].to_numpy(), rows["blind"].to_numpy().astype(float)
    rounds, place = np.unique(rows["round"].to_numpy(), return_inverse=True)
    groups = [values[place == i] for i in range(len(rounds))]
    return Series(
        rounds=rounds,
        mean=np.array([group.mean() for group in groups]),
        low=np.array([np.percentile(group, 10) for group in groups]),
        high=np.array([np.percentile(group, 90) for group in groups]),
        blind=np.array([blinds[place == i].mean() for i in range(len(rounds))]),
        value=float(values.mean()),
        blind_value=float(blinds.mean()),
    )
