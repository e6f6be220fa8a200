"""A statistic that tells two hypotheses apart, learned from runs that certify nothing.

Candidates are every feature by itself, either way round, and three predictors of all features: a
linear discriminant, a quadratic one (a normal distribution of each feature and hypothesis, for
spreads that differ), and a forest. Predictors are fitted on one half of these runs and tried on the
other, and the same the other way round. The candidate and the threshold with the largest bound win.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from adversary.auditing.mu_gdp import mus_of_rates
from adversary.auditing.rates import epsilons_of_rates, upper_rates
from fedsim.core.rng import derive

LEVEL = 0.05 / 32  # at which candidates are compared: about that of a bound among many
DELTA = 1e-5  # for the same
RIDGE = 0.1  # of the linear discriminant, in units of a feature's variance
TREES, DEPTH, LEAF = 30, 4, 5  # of the forest

Array = NDArray[np.float64]
Table = Float[np.ndarray, "n f"]
Score = Callable[[Array], Array]
"""Features, shape (n, f) → a score for each run, higher with the canary."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The statistic that was chosen, and where its test says "canary".

    Attributes:
        name: A feature, or a predictor of all features.
        score: Features → scores.
        threshold: On the scores.
    """

    name: str
    score: Score
    threshold: float


@dataclass(frozen=True, eq=False)
class Candidates:
    """Statistics that were tried on some runs.

    Attributes:
        names: Of the features, then of the predictors.
        fitted: The predictors, fitted to all of these runs.
        without: Every candidate's score of every run without the canary, shape (n, candidates).
        having: The same of every run with it.
    """

    names: Sequence[str]
    fitted: Sequence[Score]
    without: Array
    having: Array

    def best(self, *, gaussian: bool) -> Chosen:
        """Return the statistic and the threshold with the largest bound.

        Args:
            gaussian: Whether it is for a bound of μ, in place of one of ε.
        """
        place, sign, threshold = best_test(self.without, self.having, gaussian=gaussian)
        past = place - (len(self.names) - len(self.fitted))
        score = self.fitted[past] if past >= 0 else lambda features: features[:, place]
        return Chosen(self.names[place], lambda x: sign * score(x), sign * threshold)


def candidates(names: Sequence[str], without: Table, having: Table) -> Candidates:
    """Fit predictors and try them on runs that they were not fitted to.

    Args:
        names: Of the features.
        without: Features of runs without the canary.
        having: Features of runs with it.
    """
    crossed = [_crossed(fit, without, having) for fit in PREDICTORS.values()]
    tables = [
        np.column_stack([part, *(scores[which] for scores in crossed)])
        for which, part in enumerate((without, having))
    ]
    fitted = [fit(without, having) for fit in PREDICTORS.values()]
    return Candidates([*names, *PREDICTORS], fitted, *tables)


def best_test(without: Array, having: Array, *, gaussian: bool) -> tuple[int, int, float]:
    """Return the column, which way round it is taken, and the threshold with the largest gain."""
    counts = len(without), len(having)
    rates = [upper_rates(np.arange(n + 1), n, LEVEL / 2) for n in counts]
    both = np.concatenate([without, having])
    order = both.argsort(axis=0, kind="stable")
    values = np.take_along_axis(both, order, axis=0)
    below = np.cumsum(order < counts[0], axis=0)  # runs without the canary, up to each value
    least = np.arange(1, len(both) + 1)[:, None] - below  # and with it
    gains = np.stack(
        [
            _gains(rates[0][counts[0] - below], rates[1][least], gaussian=gaussian),
            _gains(rates[0][below], rates[1][counts[1] - least], gaussian=gaussian),
        ],
        axis=-1,
    )
    tied = np.diff(values, axis=0, append=np.inf) <= 0
    gains[tied | ~np.isfinite(values)] = -np.inf
    row, place, way = np.unravel_index(int(gains.argmax()), gains.shape)
    value, after = values[row, place], values[min(row + 1, len(values) - 1), place]
    middle = (value + after) / 2
    if not value < middle < after:  # next to each other: a score must be above to be a canary's
        middle = after if way else value
    return int(place), 1 - 2 * int(way), float(middle)


def _gains(false_positives: Array, false_negatives: Array, *, gaussian: bool) -> Array:
    if gaussian:
        gains = mus_of_rates(false_positives, false_negatives, DELTA)
        return np.nan_to_num(gains, nan=-np.inf, neginf=-np.inf)
    return epsilons_of_rates(false_positives, false_negatives, DELTA)


def _crossed(fit: Callable[[Table, Table], Score], without: Table, having: Table) -> list[Array]:
    """Return scores of all runs by predictors that were fitted to the other half."""
    scores = [np.empty(len(without)), np.empty(len(having))]
    for start in (0, 1):
        score = fit(without[1 - start :: 2], having[1 - start :: 2])
        for part, out in zip((without, having), scores, strict=True):
            out[start::2] = score(part[start::2])
    return scores


def _linear(without: Table, having: Table) -> Score:
    """Fit Fisher's linear discriminant to standardised features."""
    scale = _scale(without, having)
    x, y = without / scale, having / scale
    apart = y.mean(axis=0) - x.mean(axis=0)
    spread = (np.cov(x.T).reshape(len(apart), -1) + np.cov(y.T).reshape(len(apart), -1)) / 2
    weights = np.linalg.solve(spread + RIDGE * np.eye(len(apart)), apart) / scale
    return lambda features: features @ weights


def _quadratic(without: Table, having: Table) -> Score:
    """Fit a normal distribution to each feature and hypothesis; score by the likelihood ratio."""
    scale = _scale(without, having)
    moments = [
        ((part / scale).mean(axis=0), (part / scale).var(axis=0) + RIDGE**2)
        for part in (without, having)
    ]

    def score(features: Array) -> Array:
        x = features / scale
        low, high = (-((x - mean) ** 2) / var - np.log(var) for mean, var in moments)
        return (high - low).sum(axis=1) / 2

    return score


def _forest(without: Table, having: Table) -> Score:
    """Fit a small random forest."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(
        n_estimators=TREES,
        max_depth=DEPTH,
        min_samples_leaf=LEAF,
        random_state=derive(0, "audit", "forest") % 2**32,
    )
    classes = np.repeat([0, 1], [len(without), len(having)])
    forest.fit(np.concatenate([without, having]), classes)
    return lambda features: np.asarray(forest.predict_proba(features))[:, 1]


def _scale(without: Table, having: Table) -> Array:
    """Return each feature's standard deviation over all runs; 1 where it never changes."""
    both = np.concatenate([without, having])
    std = both.std(axis=0)
    return np.where(std > 1e-12 * np.abs(both).max(axis=0, initial=1e-300), std, 1.0)


PREDICTORS: dict[str, Callable[[Table, Table], Score]] = {
    "linear discriminant": _linear,
    "quadratic discriminant": _quadratic,
    "forest": _forest,
}
