"""Mean: how far clients' summed uploads lie along their canaries, on average. Ours.

Along a random direction, noise of any kind that was drawn without it has the variance that it has
in the other dimensions, which are many and tell it. A sum over rounds is one observation, so that
noise may be used again: it is what the sum is measured by. Gaussian is only how μ is made an ε. The
mean of k such numbers, in units of that noise, is normal.
"""

import math

import numpy as np
from jaxtyping import Float

from adversary.auditing.claim import Claim
from adversary.auditing.coins import APART, CoinedUpdates
from adversary.auditing.finding import GAUSSIAN, Finding, Guarantee
from adversary.auditing.method import Method
from adversary.auditing.one_run import LARGEST
from adversary.auditing.trials import check_finite
from defenses.promise import gaussian_epsilon

LEAST = 100  # dimensions of which the noise is estimated


def by_mean(
    cosines: Float[np.ndarray, " k"], dimension: int, claim: Claim, confidence: float
) -> Finding:
    """Bound μ by the mean over clients of how far sums of uploads lie along their canaries.

    Args:
        cosines: Of every client's summed uploads with its canary, turned by its coin.
        dimension: Of the uploads.
        claim: Over the same rounds.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: There are too few dimensions to tell the noise by.
    """
    from scipy.special import ndtri

    check_finite(cosines)
    if dimension < LEAST:
        raise ValueError(f"dimension: must be at least {LEAST} to tell noise by, got {dimension}")
    exact, freedom = np.clip(np.abs(cosines), 0, 1 - 1e-12), dimension - 1
    along = np.sign(cosines) * exact * np.sqrt(freedom / (1 - exact**2))
    # The noise is estimated too: a noncentral t, whose mean is too large by 1/J (Hedges, 1981).
    along *= 1 - 3 / (4 * freedom - 1)
    variance = freedom / (freedom - 2) * (1 + along**2 / (2 * freedom))
    deviation = math.sqrt(float(variance.sum())) / len(along)
    low = float(along.mean()) - float(ndtri(confidence)) * deviation
    mu = max(0.0, APART * low)
    return Finding(
        method="mean",
        guarantee=Guarantee.BOUND,
        epsilon=min(LARGEST, gaussian_epsilon(mu, claim.delta)),
        delta=claim.delta,
        confidence=confidence,
        relation=claim.relation,
        trials=len(along),
        most=math.inf,
        assumes=GAUSSIAN,
        mu=mu,
    )


def of_updates(updates: CoinedUpdates, claim: Claim, confidence: float) -> Finding:
    """Bound μ by the mean of clients' cosines."""
    return by_mean(updates.cosines, updates.dimension, claim, confidence)


METHOD = Method(
    name="mean",
    title="mean",
    guarantee=Guarantee.BOUND,
    how="mean of clients' sums along their canaries",
    of_updates=of_updates,
)
