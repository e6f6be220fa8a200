"""Trials: scores of many runs with and without the canary, and a threshold between them."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from adversary.auditing.finding import check_probability
from adversary.auditing.rates import check_trials, upper_rate, upper_rates

Scores = Float[np.ndarray, " _"]
NOTHING = np.empty(0)


@dataclass(frozen=True, eq=False)
class Trials:
    """Scores of independent runs of a mechanism on two neighbouring data sets.

    Attributes:
        without: Score of every run without the canary, or with its other value.
        having: Score of every run with it.
    """

    without: Scores
    having: Scores

    @property
    def counts(self) -> tuple[int, int]:
        """How many runs there are of each."""
        return len(self.without), len(self.having)

    def check(self, *, delta: float, confidence: float) -> None:
        """Refuse trials that could certify nothing.

        Raises:
            ValueError: δ or confidence is no probability, there are too few trials, or a score is
                NaN.
        """
        check_probability("delta", delta)
        check_probability("confidence", confidence)
        check_trials(min(self.counts), delta=delta, confidence=confidence)
        check_finite(self.without, self.having)

    def errors_at(self, threshold: float) -> tuple[int, int]:
        """Return the numbers of false positives and of false negatives of a test."""
        return int((self.without > threshold).sum()), int((self.having <= threshold).sum())

    def rates_at(self, threshold: float, level: float) -> tuple[float, float]:
        """Return upper bounds of both error rates that hold together, each at half the level."""
        return self.bounded(self.errors_at(threshold), level)

    def bounded(self, errors: tuple[int, int], level: float) -> tuple[float, float]:
        """Return `rates_at` of a test with so many errors."""
        false_positive, false_negative = (
            upper_rate(wrong, count, level / 2)
            for wrong, count in zip(errors, self.counts, strict=True)
        )
        return false_positive, false_negative

    def thresholds(self) -> NDArray[np.float64]:
        """Return every threshold that makes a difference."""
        values = np.unique(np.concatenate([self.without, self.having]))
        return np.append(values[0] - 1, values)

    def every_rate(
        self, thresholds: NDArray[np.float64], level: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `rates_at` of many thresholds."""
        above = np.searchsorted(np.sort(self.without), thresholds, side="right")
        false_negatives = np.searchsorted(np.sort(self.having), thresholds, side="right")
        without, having = self.counts
        return (
            upper_rates(without - above, without, level / 2),
            upper_rates(false_negatives, having, level / 2),
        )

    def halves(self) -> tuple["Trials", "Trials"]:
        """Return every second trial, and the others."""
        first, second = (Trials(self.without[start::2], self.having[start::2]) for start in (0, 1))
        return first, second


@dataclass(frozen=True, eq=False)
class Threshold:
    """Where a test says "canary": at scores above `value`.

    Attributes:
        value: In units of the scores.
        chosen_on: The scores that it was chosen on; none if it was fixed beforehand.
    """

    value: float
    chosen_on: NDArray[np.float64] = field(default_factory=lambda: NOTHING)

    def check(self, trials: Trials) -> None:
        """Refuse to be tried on what it was chosen on.

        Raises:
            ValueError: It was chosen on some of these scores.
        """
        if not len(self.chosen_on):
            return
        scores = (trials.without, trials.having)
        same = sum(int(np.isin(part, self.chosen_on).sum()) for part in scores)
        alike = any(np.shares_memory(part, self.chosen_on) for part in scores)
        repeats = len(np.unique(self.chosen_on)) < len(self.chosen_on)  # few values: no telling
        if alike or (same and not repeats) or same == sum(trials.counts):
            raise ValueError(
                f"threshold: must not be chosen on scores that it certifies, got {same} of "
                f"{sum(trials.counts)} that it was chosen on; fix it beforehand, split the "
                "scores, or correct for every threshold"
            )


ZERO = Threshold(0.0)
"""The middle between two hypotheses, where scores are centred or turned by a coin."""


def check_finite(*scores: Scores) -> None:
    """Refuse scores that are no numbers: NaN is on no side of a threshold.

    Raises:
        ValueError: A score is NaN.
    """
    if any(np.isnan(part).any() for part in scores):
        raise ValueError("scores: must be numbers, got NaN")
