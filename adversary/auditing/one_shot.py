"""One shot: random canary clients in one aggregate, and an estimate of ε. Never a bound.

Source: G. Andrew, P. Kairouz, S. Oh, A. Oprea, H. B. McMahan, V. Suriyakumar, "One-shot empirical
privacy estimation for federated learning", ICLR 2024. The update of a canary client is a random
unit vector. Cosines of such vectors with what is released are N(0, 1/d) if they had no part in
it; those that had lie higher, and how far is an estimate of what the release tells of each.

*Differs from the paper*: the variance is 1/d, as without the canary, unless it is asked to be
fitted: that of 100 cosines is so uncertain that of a true ε of 4.38 the estimate is 7.8 ± 1.5
(`papers/inference.md`, section 4).
"""

import math

import numpy as np
import scipy
from jaxtyping import Float

from adversary.auditing.claim import Claim
from adversary.auditing.coins import APART, CoinedUpdates
from adversary.auditing.finding import Finding, Guarantee, check_probability
from adversary.auditing.method import Method
from adversary.auditing.trials import check_finite
from defenses.promise import Relation, gaussian_epsilon

FEWEST = 1000  # cosines of which a variance may be fitted


def one_shot(
    cosines: Float[np.ndarray, " k"],
    dimension: int,
    *,
    relation: Relation,
    delta: float = 1e-5,
    fit_variance: bool = False,
    apart: float = 1.0,
) -> Finding:
    """Estimate ε from the cosines of canaries with the release that they are in.

    Args:
        cosines: Of every canary's unit vector with the release.
        dimension: d, of the release.
        relation: Between a release with and without a canary.
        delta: δ.
        fit_variance: Take the variance of the cosines for that of a canary that is in.
        apart: How many times further two neighbours are apart than with and without: 2 where a
            canary is replaced by its opposite.

    Raises:
        ValueError: δ is no probability, there are fewer than two cosines, or too few to fit a
            variance to.
    """
    check_probability("delta", delta)
    _check_count(cosines, fit_variance=fit_variance)
    mean = apart * float(cosines.mean()) * math.sqrt(dimension)
    if fit_variance:
        spread = float(cosines.std(ddof=1)) * math.sqrt(dimension)
        epsilon = epsilon_of_normals(mean, spread, delta)
    else:
        epsilon = gaussian_epsilon(max(0.0, mean), delta)
    return Finding(
        method="one-shot",
        guarantee=Guarantee.ESTIMATE,
        epsilon=epsilon,
        delta=delta,
        confidence=None,
        relation=relation,
        trials=len(cosines),
        most=float("inf"),
        assumes="a release of independent Gaussian noise",
        mu=max(0.0, mean),
    )


def _check_count(cosines: Float[np.ndarray, " k"], *, fit_variance: bool) -> None:
    """Refuse too few cosines, or any that is not finite.

    Raises:
        ValueError: They are.
    """
    check_finite(cosines)
    if len(cosines) < 2:
        raise ValueError(f"canaries: must be at least 2, got {len(cosines)}")
    if fit_variance and len(cosines) < FEWEST:
        raise ValueError(
            f"canaries: must be at least {FEWEST} to fit a variance to, got {len(cosines)}; leave "
            "it at 1/d"
        )


def of_updates(updates: CoinedUpdates, claim: Claim, confidence: float) -> Finding:  # noqa: ARG001
    """Estimate ε from clients' summed uploads; an estimate has no confidence."""
    return one_shot(
        updates.cosines,
        updates.dimension,
        relation=claim.relation,
        delta=claim.delta,
        apart=APART,
    )


def epsilon_of_normals(mean: float, spread: float, delta: float) -> float:
    """Return the ε at δ between N(0, 1) and N(mean, spread²), whichever way round is larger."""
    return max(_one_way(mean, spread, delta), _one_way(-mean / spread, 1 / spread, delta))


def _one_way(mean: float, spread: float, delta: float) -> float:
    """Solve δ(ε) = P[A] − e^ε Q[A] = δ for ε ≥ 0, P = N(mean, spread²), Q = N(0, 1)."""
    from scipy.optimize import brentq

    def excess(epsilon: float) -> float:
        total = 0.0
        for low, high in _likelier(mean, spread, epsilon):
            p = _mass((low - mean) / spread, (high - mean) / spread)
            q = _mass(low, high)
            total += p - (math.exp(epsilon + math.log(q)) if q > 0 else 0.0)
        return total - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high))  # type: ignore[arg-type]


def _likelier(mean: float, spread: float, epsilon: float) -> list[tuple[float, float]]:
    """Return where log p − log q > ε: (1 − 1/s²)x²/2 + (m/s²)x − m²/(2s²) − log s − ε > 0."""
    square = (1 - 1 / spread**2) / 2
    slope, level = mean / spread**2, mean**2 / (2 * spread**2) + math.log(spread) + epsilon
    if abs(square) < 1e-12:
        if not slope:
            return []
        at = level / slope
        return [(at, math.inf)] if slope > 0 else [(-math.inf, at)]
    root = slope**2 + 4 * square * level
    if root < 0:
        return [(-math.inf, math.inf)] if square > 0 else []
    ends = sorted((-slope + sign * math.sqrt(root)) / (2 * square) for sign in (-1, 1))
    return [(-math.inf, ends[0]), (ends[1], math.inf)] if square > 0 else [(ends[0], ends[1])]


def _mass(low: float, high: float) -> float:
    """Return the mass of N(0, 1) between two ends, taken in the tail that is smaller."""
    if low > 0:
        return float(scipy.special.ndtr(-low) - scipy.special.ndtr(-high))
    return float(scipy.special.ndtr(high) - scipy.special.ndtr(low))


METHOD = Method(
    name="one-shot",
    title="one shot",
    guarantee=Guarantee.ESTIMATE,
    how="mean cosine of clients' sums with their canaries",
    of_updates=of_updates,
)
