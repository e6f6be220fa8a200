"""What the canaries of a federation's rounds show of ε, held against their coins.

Coins are fair, independent and kept for the whole run. Given the coins, uploads of a mechanism that
draws fresh noise err independently, in every round and at every client alike; sums over a client's
rounds err independently of other clients' whatever the noise does from round to round. Which of
the two is counted is decided by numbers of coins, never by scores, and the threshold is 0.

Record canaries share batches and a model: of them only one-run auditing has a theorem.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from adversary.auditing.finding import Finding, Guarantee
from adversary.auditing.one_run import LARGEST, one_run_epsilon
from adversary.auditing.one_shot import one_shot
from adversary.auditing.rates import most_epsilon, mu_of_rates
from adversary.auditing.two_hypotheses import Threshold, bounded, certify, check_finite, credible
from adversary.auditing.uploads import Heard
from defenses.promise import Relation, gaussian_epsilon

METHODS = {
    "audit-mean": Guarantee.BOUND,
    "audit-mu-gdp": Guarantee.BOUND,
    "audit-clopper-pearson": Guarantee.BOUND,
    "audit-one-run": Guarantee.BOUND,
    "audit-bayes": Guarantee.CREDIBLE,
    "audit-one-shot": Guarantee.ESTIMATE,
}
"""What is tried in every audited round; of record canaries one-run alone."""
OF_RECORDS = ("audit-one-run",)
FRESH = "fresh noise in every round"
ZERO = Threshold(0.0)  # of scores that coins turn round
APART = 2.0  # a canary and its opposite, in units of the canary
LEAST = 100  # dimensions of which the noise is estimated
WORTH = 1.0  # an ε that sums over clients can show where they are counted, not single uploads
FEW = 50  # canaries; of fewer, three in four are guessed, of more every second


@dataclass(frozen=True)
class Claim:
    """What theory says of the client that took part most.

    Attributes:
        relation: Neighbours that it is about, and that canaries tell apart.
        delta: δ.
        confidence: Of bounds and credible intervals.
        rounds: In which that client took part.
        epsilon: ε of all of them together.
        mu: μ of Gaussian differential privacy of them together, where that is what it is.
        client: Who that is.
        mechanism: What makes it so.
    """

    relation: Relation
    delta: float
    confidence: float
    rounds: int
    epsilon: float
    mu: float | None
    client: str
    mechanism: str

    def tpr_at(self, fpr: float) -> float:
        """Return the largest true positive rate of a test with a false positive rate."""
        if self.mu is not None:
            from scipy.stats import norm

            return float(norm.cdf(norm.ppf(fpr) + self.mu))
        up = self.delta + math.exp(min(700.0, self.epsilon)) * fpr
        down = 1 - math.exp(-self.epsilon) * (1 - self.delta - fpr)
        return min(1.0, up, down)


def of_updates(
    heard: Sequence[Heard], coins: Bool[np.ndarray, " k"], claim: Claim
) -> tuple[dict[str, Finding], dict[str, str]]:
    """Return what update canaries show, and why a method has nothing to say.

    Args:
        heard: Of every client.
        coins: Theirs.
        claim: Over the same rounds.
    """
    uploads = [one.scores for one in heard]
    sums = np.array([scores.sum() for scores in uploads])
    whose = np.repeat(coins, [len(scores) for scores in uploads])
    by_client, by_upload = split_by(sums, coins), split_by(np.concatenate(uploads), whose)
    told = {"delta": claim.delta, "confidence": claim.confidence}
    fresh = most_epsilon(max(1, min(map(len, by_client))), **told) < WORTH
    counted = by_upload if fresh else by_client
    cosines = np.where(coins, 1, -1) * np.array([one.cosine for one in heard])
    dimension = min(one.dimension for one in heard)
    asked = {"relation": claim.relation, **told}

    def assumed(found: Finding) -> Finding:
        return replace(found, assumes=_and(found.assumes)) if fresh else found

    return _tried({
        "audit-mean": lambda: by_mean(cosines, dimension, claim),
        "audit-mu-gdp": lambda: _composed(by_upload, claim),
        "audit-clopper-pearson": lambda: assumed(certify(*counted, ZERO, **asked)[0]),
        "audit-one-run": lambda: by_sign(sums, coins, claim),
        "audit-bayes": lambda: assumed(credible(*counted, ZERO, **asked)),
        "audit-one-shot": lambda: one_shot(
            cosines, dimension, relation=claim.relation, delta=claim.delta, apart=APART
        ),
    })  # fmt: skip


def of_records(
    scores: Float[np.ndarray, " m"], coins: Bool[np.ndarray, " m"], claim: Claim
) -> tuple[dict[str, Finding], dict[str, str]]:
    """Return what the record canaries of all clients show, and why a method has nothing to say."""
    return _tried({"audit-one-run": lambda: by_sign(scores, coins, claim)})


def by_sign(
    scores: Float[np.ndarray, " m"], coins: Bool[np.ndarray, " m"], claim: Claim
) -> Finding:
    """Guess the coins of the surest scores by their signs, and bound ε by how many are right.

    Unlike the highest and the lowest scores, which must be right as often as wrong where coins fell
    more often on one side.

    Raises:
        ValueError: There are too few canaries to show anything.
    """
    check_finite(scores)
    m, guesses = len(scores), num_guesses(len(scores))
    told = {"delta": claim.delta, "confidence": claim.confidence}
    most = one_run_epsilon(m, guesses, guesses, **told)
    if most <= 0:
        raise ValueError(
            f"canaries: must be at least {fewest(**told)} to certify anything at "
            f"{100 * claim.confidence:g} %, got {m}"
        )
    surest = np.argsort(-np.abs(scores), kind="stable")[:guesses]
    right = int(((scores[surest] > 0) == coins[surest]).sum())
    epsilon = one_run_epsilon(m, guesses, right, **told)
    return Finding(
        "one-run", Guarantee.BOUND, epsilon, claim.delta, claim.confidence, claim.relation, m, most
    )


def by_mean(cosines: Float[np.ndarray, " k"], dimension: int, claim: Claim) -> Finding:
    """Bound μ by the mean over clients of how far sums of uploads lie along their canaries.

    Ours. Along a random direction, noise of any kind that was drawn without it has the variance
    that it has in the other dimensions, which are many and tell it. A sum over rounds is one
    observation, so that noise may be used again: it is what the sum is measured by. Gaussian is
    only how μ is made an ε. The mean of k such numbers, in units of that noise, is normal.

    Args:
        cosines: Of every client's summed uploads with its canary, turned by its coin.
        dimension: Of the uploads.
        claim: Over the same rounds.

    Raises:
        ValueError: There are too few dimensions to tell the noise by.
    """
    from scipy.stats import norm

    check_finite(cosines)
    if dimension < LEAST:
        raise ValueError(f"dimension: must be at least {LEAST} to tell noise by, got {dimension}")
    exact, freedom = np.clip(np.abs(cosines), 0, 1 - 1e-12), dimension - 1
    along = np.sign(cosines) * exact * np.sqrt(freedom / (1 - exact**2))
    # The noise is estimated too: a noncentral t, whose mean is too large by 1/J (Hedges, 1981).
    along *= 1 - 3 / (4 * freedom - 1)
    variance = freedom / (freedom - 2) * (1 + along**2 / (2 * freedom))
    deviation = math.sqrt(float(variance.sum())) / len(along)
    low = float(along.mean()) - float(norm.ppf(claim.confidence)) * deviation
    mu = max(0.0, APART * low)
    epsilon = min(LARGEST, gaussian_epsilon(mu, claim.delta))
    return Finding(
        "mean", Guarantee.BOUND, epsilon, claim.delta, claim.confidence,
        claim.relation, len(along), math.inf, assumes="a Gaussian mechanism", mu=mu,
    )  # fmt: skip


def num_guesses(canaries: int) -> int:
    """Return how many coins are guessed: a number that no score has a part in."""
    return math.ceil(0.75 * canaries) if canaries < FEW else canaries // 2


def fewest(*, delta: float, confidence: float) -> int:
    """Return how many canaries could show an ε above 0, if every guess were right."""
    m = 1
    told = {"delta": delta, "confidence": confidence}
    while m < 10**6 and one_run_epsilon(m, num_guesses(m), num_guesses(m), **told) <= 0:
        m += 1
    return m


def check_enough(canaries: int, *, delta: float, confidence: float) -> None:
    """Refuse so few record canaries that nothing could be certified, were every guess right.

    Of update canaries a mean may show something of a single one.

    Raises:
        ValueError: They are too few.
    """
    if canaries < (least := fewest(delta=delta, confidence=confidence)):
        raise ValueError(
            f"must carry at least {least} canaries to certify anything at "
            f"{100 * confidence:g} %, got {canaries}"
        )


def tpr_at(
    scores: Float[np.ndarray, " m"], coins: Bool[np.ndarray, " m"], fpr: float
) -> float | None:
    """Return the audited test's own true positive rate; None where too few coins are tails."""
    without, having = split_by(scores, coins)
    if len(without) * fpr < 10 or not len(having):
        return None
    return float((having > np.quantile(without, 1 - fpr)).mean())


def split_by(
    scores: Float[np.ndarray, " n"], coins: Bool[np.ndarray, " n"]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of tails and those of heads."""
    return scores[~coins], scores[coins]


def _composed(by: tuple[NDArray[np.float64], NDArray[np.float64]], claim: Claim) -> Finding:
    """Turn μ of one round into that of as many as the claim is about."""
    told = {"relation": claim.relation, "delta": claim.delta, "confidence": claim.confidence}
    found, times = certify(*by, ZERO, **told)[1], claim.rounds**0.5
    least = bounded((0, 0), (len(by[0]), len(by[1])), 1 - claim.confidence)
    mu, most = times * (found.mu or 0.0), times * mu_of_rates(*least)
    return replace(
        found, epsilon=gaussian_epsilon(mu, claim.delta), mu=mu,
        most=gaussian_epsilon(most, claim.delta), assumes=_and(found.assumes),
    )  # fmt: skip


def _and(assumed: str | None) -> str:
    return FRESH if assumed is None else f"{assumed} and {FRESH}"


def _tried(
    methods: dict[str, Callable[[], Finding]],
) -> tuple[dict[str, Finding], dict[str, str]]:
    """Return every method's answer, or the sentence in which it says why it has none."""
    found, reasons = {}, {}
    for name, method in methods.items():
        try:
            found[name] = method()
        except ValueError as error:
            reasons[name] = str(error)
    return found, reasons
