"""Two hypotheses: many runs with and without the canary, and how well a test tells them apart.

Source: M. Nasr, S. Song, A. Thakurta, N. Papernot, N. Carlini, "Adversary instantiation: lower
bounds for differentially private machine learning", IEEE S&P 2021 (Clopper–Pearson); M. Nasr,
J. Hayes, T. Steinke, B. Balle, F. Tramèr, M. Jagielski, N. Carlini, A. Terzis, "Tight auditing of
differentially private machine learning", USENIX Security 2023 (μ-GDP); S. Zanella-Béguelin et al.,
"Bayesian estimation of differential privacy", ICML 2023 (credible intervals).

A test is a threshold on scores. One that is chosen on the scores it is tried on is no test but the
best of many: 8 % of audits of a Laplace mechanism are wrong then, at a level of 5 %
(`papers/inference.md`, section 4). `certify` therefore takes a `Threshold` that knows what it was
chosen on, and refuses one chosen on its own scores.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import beta, norm

from adversary.auditing.finding import Finding, Guarantee, check_probability
from adversary.auditing.rates import (
    check_trials,
    epsilon_of_rates,
    most_epsilon,
    mu_of_rates,
    upper_rate,
)
from defenses.promise import Relation, gaussian_epsilon

Scores = Float[np.ndarray, " _"]
GRID = 1001  # quantiles of a posterior, of each rate
NOTHING = np.empty(0)


@dataclass(frozen=True, eq=False)
class Threshold:
    """Where a test says "canary": at scores above `value`.

    Attributes:
        value: In units of the scores.
        chosen_on: The scores that it was chosen on; none where it was fixed beforehand.
    """

    value: float
    chosen_on: NDArray[np.float64] = field(default_factory=lambda: NOTHING)

    def check(self, *scores: Scores) -> None:
        """Refuse to be tried on what it was chosen on.

        Raises:
            ValueError: It was chosen on some of these scores.
        """
        if not len(self.chosen_on):
            return
        same = sum(int(np.isin(part, self.chosen_on).sum()) for part in scores)
        alike = any(np.shares_memory(part, self.chosen_on) for part in scores)
        repeats = len(np.unique(self.chosen_on)) < len(self.chosen_on)  # few values: no telling
        if alike or (same and not repeats) or same == sum(map(len, scores)):
            raise ValueError(
                f"threshold: must not be chosen on scores that it certifies, got {same} of "
                f"{sum(map(len, scores))} that it was chosen on; fix it beforehand, split the "
                "scores, or correct for every threshold"
            )


def certify(
    without: Scores,
    having: Scores,
    threshold: Threshold,
    *,
    relation: Relation,
    delta: float = 1e-5,
    confidence: float = 0.95,
) -> tuple[Finding, Finding]:
    """Return what independent trials show of ε: without assumptions, and for a Gaussian mechanism.

    Error rates are bounded by one-sided Clopper–Pearson intervals, each at half the level.

    Args:
        without: Score of every run without the canary (or with the other value).
        having: Score of every run with it.
        threshold: Fixed beforehand, or chosen on other scores.
        relation: Which two data sets the runs were of.
        delta: δ.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: δ or confidence is no probability, there are too few trials, or the threshold
            was chosen on these scores.
    """
    _check(without, having, delta=delta, confidence=confidence)
    threshold.check(without, having)
    trials, level = (len(without), len(having)), 1 - confidence
    rates = bounded(errors_at(without, having, threshold.value), trials, level)
    least = bounded((0, 0), trials, level)  # what trials without any error would show
    told = (delta, confidence, relation, sum(trials))
    mu = mu_of_rates(*rates)
    return (
        Finding(
            "clopper-pearson", Guarantee.BOUND, epsilon_of_rates(*rates, delta), *told,
            epsilon_of_rates(*least, delta),
        ),
        Finding(
            "mu-gdp", Guarantee.BOUND, gaussian_epsilon(mu, delta), *told,
            gaussian_epsilon(mu_of_rates(*least), delta), assumes="a Gaussian mechanism", mu=mu,
        ),
    )  # fmt: skip


def split(
    without: Scores,
    having: Scores,
    *,
    relation: Relation,
    delta: float = 1e-5,
    confidence: float = 0.95,
) -> tuple[Finding, Finding]:
    """Choose each kind of bound's threshold on every second trial, and certify on the others."""
    check_probability("delta", delta)
    check_probability("confidence", confidence)
    check_finite(without, having)
    told = {"relation": relation, "delta": delta, "confidence": confidence}
    found = []
    for place in range(2):
        value = best_threshold(
            without[::2], having[::2], delta=delta, confidence=confidence, gaussian=place == 1
        )
        chosen = Threshold(value)  # on other trials, though their scores may be the same
        found.append(certify(without[1::2], having[1::2], chosen, **told)[place])
    return found[0], found[1]


def best_threshold(
    without: Scores, having: Scores, *, delta: float, confidence: float, gaussian: bool = False
) -> float:
    """Return the threshold with the largest bound on these scores: to be used on others only."""
    thresholds, positives, negatives = _every_threshold(without, having)
    trials = len(without), len(having)
    upper, lower = _every_rate(positives, negatives, trials, 1 - confidence)
    found = norm.isf(upper) - norm.ppf(lower) if gaussian else _epsilons(upper, lower, delta)
    return float(thresholds[int(np.nan_to_num(found, nan=-np.inf).argmax())])


def bonferroni(
    without: Scores,
    having: Scores,
    *,
    relation: Relation,
    delta: float = 1e-5,
    confidence: float = 0.95,
) -> Finding:
    """Return the largest bound over all thresholds, each at its share of the level.

    The shares are those of all distinct thresholds between two scores: nothing is assumed of the
    mechanism, and nothing is split.

    Raises:
        ValueError: As `certify`.
    """
    _check(without, having, delta=delta, confidence=confidence)
    fewest = min(len(without), len(having))
    thresholds, false_positives, false_negatives = _every_threshold(without, having)
    level = (1 - confidence) / len(thresholds)
    rates = _every_rate(false_positives, false_negatives, (len(without), len(having)), level)
    best = float(_epsilons(*rates, delta).max())
    return Finding(
        "clopper-pearson-bonferroni", Guarantee.BOUND, best, delta, confidence, relation,
        len(without) + len(having), most_anywhere(fewest, delta=delta, confidence=confidence),
    )  # fmt: skip


def most_anywhere(trials: int, *, delta: float, confidence: float) -> float:
    """Return what `bonferroni` would show of as many trials of each hypothesis without error."""
    level = (1 - confidence) / (2 * trials + 1)
    return most_epsilon(trials, delta=delta, confidence=1 - level)


def credible(
    without: Scores,
    having: Scores,
    threshold: Threshold,
    *,
    relation: Relation,
    delta: float = 1e-5,
    confidence: float = 0.95,
) -> Finding:
    """Return the lower end of a one-sided credible interval of the ε that a test shows.

    False positive and negative rates have Jeffreys' prior and are independent; the posterior of ε
    is that of `epsilon_of_rates`, summed over quantiles of both. Nothing is drawn at random.

    Raises:
        ValueError: As `certify`.
    """
    _check(without, having, delta=delta, confidence=confidence)
    threshold.check(without, having)
    errors = errors_at(without, having, threshold.value)
    middles = (np.arange(GRID) + 0.5) / GRID
    positive, negative = (
        beta.ppf(middles, wrong + 0.5, count - wrong + 0.5)
        for wrong, count in zip(errors, (len(without), len(having)), strict=True)
    )
    values = _epsilons(positive[:, None], negative[None, :], delta)
    epsilon = float(np.quantile(values, 1 - confidence))
    return Finding(
        "bayes", Guarantee.CREDIBLE, epsilon, delta, confidence, relation,
        len(without) + len(having), float("inf"), assumes="Jeffreys' prior of both error rates",
    )  # fmt: skip


def errors_at(without: Scores, having: Scores, threshold: float) -> tuple[int, int]:
    """Return the numbers of false positives and of false negatives of a test."""
    return int((without > threshold).sum()), int((having <= threshold).sum())


def bounded(errors: tuple[int, int], trials: tuple[int, int], level: float) -> tuple[float, float]:
    """Return upper bounds of both error rates that hold together, each at half the level."""
    false_positive, false_negative = (
        upper_rate(wrong, count, level / 2) for wrong, count in zip(errors, trials, strict=True)
    )
    return false_positive, false_negative


def _check(without: Scores, having: Scores, *, delta: float, confidence: float) -> None:
    check_probability("delta", delta)
    check_probability("confidence", confidence)
    check_trials(min(len(without), len(having)), delta=delta, confidence=confidence)
    check_finite(without, having)


def check_finite(*scores: Scores) -> None:
    """Refuse scores that are no numbers: NaN is on no side of a threshold.

    Raises:
        ValueError: One is NaN.
    """
    if any(np.isnan(part).any() for part in scores):
        raise ValueError("scores: must be numbers, got NaN")


def _every_threshold(
    without: Scores, having: Scores
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return every threshold that makes a difference, and both kinds of errors at each."""
    values = np.unique(np.concatenate([without, having]))
    thresholds = np.append(values[0] - 1, values)
    false_positives = len(without) - np.searchsorted(np.sort(without), thresholds, side="right")
    false_negatives = np.searchsorted(np.sort(having), thresholds, side="right")
    return thresholds, false_positives, false_negatives


def _every_rate(
    false_positives: NDArray[np.int64],
    false_negatives: NDArray[np.int64],
    trials: tuple[int, int],
    level: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `bounded` at every threshold."""

    def upper(errors: NDArray[np.int64], count: int) -> NDArray[np.float64]:
        left = np.maximum(count - errors, 1e-9)
        return np.where(errors >= count, 1.0, beta.ppf(1 - level / 2, errors + 1, left))

    return upper(false_positives, trials[0]), upper(false_negatives, trials[1])


def _epsilons(
    positive: NDArray[np.float64], negative: NDArray[np.float64], delta: float
) -> NDArray[np.float64]:
    """Return `epsilon_of_rates` of many rates."""
    found = np.zeros(np.broadcast_shapes(positive.shape, negative.shape))
    for one, other in ((positive, negative), (negative, positive)):
        left = 1 - delta - other
        with np.errstate(divide="ignore"):
            ratio = np.log(np.maximum(left, 0)) - np.log(one)
        found = np.maximum(found, np.where(left > 0, ratio, 0.0))
    return found
