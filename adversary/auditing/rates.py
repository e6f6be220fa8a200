"""ε from how often a test errs: confidence intervals of error rates, and what they imply.

A test that tells two neighbouring data sets apart with false positive rate α and false negative
rate β shows that ε ≥ ln((1 − δ − β)/α), and the same with α and β changed (P. Kairouz, S. Oh,
P. Viswanath, "The composition theorem for differential privacy", ICML 2015). If the mechanism is
Gaussian it shows more: μ ≥ Φ⁻¹(1 − α) − Φ⁻¹(β) (J. Dong, A. Roth, W. Su, "Gaussian differential
privacy", JRSS B 2022), which is an ε by their corollary 1.
"""

import math

import numpy as np
import scipy
from numpy.typing import NDArray


def upper_rate(errors: int, trials: int, level: float) -> float:
    """Return the rate above which so few errors have a chance of at most `level`.

    One-sided Clopper–Pearson (C. Clopper, E. Pearson, Biometrika 1934).

    Args:
        errors: How many there were.
        trials: Independent, with the same rate.
        level: Chance that the true rate is larger.
    """
    if errors >= trials:
        return 1.0
    return float(scipy.special.betaincinv(errors + 1, trials - errors, 1 - level))


def epsilon_of_rates(false_positive: float, false_negative: float, delta: float) -> float:
    """Return the least ε at δ under which a test can have these error rates; at least 0."""
    epsilon = 0.0
    for rate, other in (
        (false_positive, false_negative),
        (false_negative, false_positive),
    ):
        if 1 - delta - other > 0:
            epsilon = max(epsilon, math.log(1 - delta - other) - math.log(max(rate, 1e-308)))
    return epsilon


def upper_rates(errors: NDArray[np.int64], trials: int, level: float) -> NDArray[np.float64]:
    """Return `upper_rate` of many tests."""
    right = np.maximum(trials - errors, 1e-9)
    return np.where(errors >= trials, 1.0, scipy.special.betaincinv(errors + 1, right, 1 - level))


def epsilons_of_rates(
    false_positives: NDArray[np.float64], false_negatives: NDArray[np.float64], delta: float
) -> NDArray[np.float64]:
    """Return `epsilon_of_rates` of many tests."""
    epsilons = np.zeros(np.broadcast_shapes(false_positives.shape, false_negatives.shape))
    for rates, others in (
        (false_positives, false_negatives),
        (false_negatives, false_positives),
    ):
        right = 1 - delta - others
        with np.errstate(divide="ignore"):
            ratios = np.log(np.maximum(right, 0)) - np.log(rates)
        epsilons = np.maximum(epsilons, np.where(right > 0, ratios, 0.0))
    return epsilons


def mu_of_rates(false_positive: float, false_negative: float) -> float:
    """Return the least μ under which a test can have these error rates; at least 0."""
    return max(
        0.0, float(-scipy.special.ndtri(false_positive) - scipy.special.ndtri(false_negative))
    )


def most_epsilon(trials: int, *, delta: float, confidence: float) -> float:
    """Return what `trials` of each hypothesis without any error would show."""
    rate = upper_rate(0, trials, (1 - confidence) / 2)
    return epsilon_of_rates(rate, rate, delta)


def trials_for(epsilon: float, *, delta: float, confidence: float) -> int:
    """Return how many trials of each hypothesis could show more than ε, if none were in error.

    From q = 1 − (α/2)^(1/n) and ε = ln((1 − δ − q)/q).
    """
    rate = (1 - delta) / (1 + math.exp(min(epsilon, 700.0)))
    return math.floor(math.log((1 - confidence) / 2) / math.log1p(-rate)) + 1


def check_trials(trials: int, *, delta: float, confidence: float) -> None:
    """Refuse so few trials that nothing could be certified.

    Raises:
        ValueError: Not even trials without any error would show an ε above 0.
    """
    if trials < 1 or most_epsilon(trials, delta=delta, confidence=confidence) <= 0:
        least = trials_for(0.0, delta=delta, confidence=confidence)
        raise ValueError(
            f"trials: must be at least {least} of each hypothesis to certify anything at "
            f"{100 * confidence:g} %, got {trials}"
        )
