"""f-DP in one run: right guesses of many coins, held against a whole trade-off curve.

Source: S. Mahloujifar, L. Melis, K. Chaudhuri, "Auditing f-differential privacy in one run", 2024
(arXiv 2410.22235), algorithm `audit_rh_with_cap` with two choices for each canary. Under f-DP the
joint chances of right and wrong guesses are bounded step by step through f; one (ε, δ) is weaker
than the curve of a Gaussian mechanism, so that this shows more than `one_run` of the same guesses.

*Differs from the paper*: the number of guesses is chosen on every fourth of many canaries, and the
others certify; of fewer it is fixed beforehand, as in `one_run`.
"""

from functools import partial

import numpy as np
import scipy
from jaxtyping import Bool, Float

from adversary.auditing.claim import Claim
from adversary.auditing.coins import CoinedUpdates
from adversary.auditing.finding import GAUSSIAN, Finding, Guarantee
from adversary.auditing.method import Method
from adversary.auditing.one_run import certifying, check_counts, largest_refuted, num_right
from adversary.auditing.trials import check_finite
from defenses.promise import gaussian_epsilon

LARGEST = 64.0  # no μ above it is looked for
STEPS, ROUGH = 34, 12  # of bisection; where numbers of guesses are only compared


def is_refuted(canaries: int, guesses: int, right: int, mu: float, level: float) -> bool:
    """Return whether so many right guesses refute μ-Gaussian differential privacy.

    Args:
        canaries: m.
        guesses: c′, at most m.
        right: c, at most c′.
        mu: μ; f⁻¹ of the blow-up function is x ↦ Φ(Φ⁻¹(x) − μ).
        level: Chance that this is wrong.
    """
    r, h = level * right / canaries, level * (guesses - right) / canaries
    for place in range(right - 1, -1, -1):
        higher = max(h, float(scipy.special.ndtr(scipy.special.ndtri(min(r, 1.0)) - mu)))
        if higher == h:
            break  # neither changes any more
        r = min(1.0, r + place / (guesses - place) * (higher - h))
        h = higher
    return r + h > guesses / canaries


def f_dp_mu(
    canaries: int, guesses: int, right: int, *, confidence: float, steps: int = STEPS
) -> float:
    """Return the largest μ that so many right guesses refute; 0 where they refute none.

    Raises:
        ValueError: The confidence is no probability, or the counts do not fit.
    """
    check_counts(canaries, guesses, right, confidence)
    refuted = lambda mu: is_refuted(canaries, guesses, right, mu, 1 - confidence)
    return largest_refuted(refuted, LARGEST, steps) if guesses else 0.0


def f_dp(
    scores: Float[np.ndarray, " m"],
    coins: Bool[np.ndarray, " m"],
    claim: Claim,
    confidence: float,
) -> Finding:
    """Guess the coins of the surest scores by their signs, and bound μ by how many are right.

    Args:
        scores: Of every canary; above 0 if it looks as if its coin were heads.
        coins: Whether it is.
        claim: Over the same rounds.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: There are too few canaries to show anything, or no curve is claimed.
    """
    check_finite(scores)
    if claim.mu is None:
        raise ValueError("claim: must be of a Gaussian mechanism to have a curve, got one (ε, δ)")
    show = partial(f_dp_mu, confidence=confidence, steps=ROUGH)
    scores, coins, guesses = certifying(scores, coins, show)
    m = len(scores)
    most = f_dp_mu(m, guesses, guesses, confidence=confidence)
    if most <= 0:
        raise ValueError(
            f"canaries: must be more to certify anything at {100 * confidence:g} %, got {m}"
        )
    mu = f_dp_mu(m, guesses, num_right(scores, coins, guesses), confidence=confidence)
    return Finding(
        method="one-run-f-dp",
        guarantee=Guarantee.BOUND,
        epsilon=gaussian_epsilon(mu, claim.delta),
        delta=claim.delta,
        confidence=confidence,
        relation=claim.relation,
        trials=m,
        most=gaussian_epsilon(most, claim.delta),
        assumes=GAUSSIAN,
        mu=mu,
    )


def of_updates(updates: CoinedUpdates, claim: Claim, confidence: float) -> Finding:
    """Guess the coins of clients' sums by their signs."""
    return f_dp(updates.sums, updates.coins, claim, confidence)


METHOD = Method(
    name="one-run-f-dp",
    title="one run, f-DP (assumes it is Gaussian)",
    guarantee=Guarantee.BOUND,
    how="coins guessed in one run, against the whole trade-off curve",
    of_updates=of_updates,
    of_records=f_dp,
)
