"""One run: many canaries, each in or out by a coin of its own, in a single training.

Source: T. Steinke, M. Nasr, M. Jagielski, "Privacy auditing with one (1) training run", NeurIPS
2023, theorem 5.2. Of m canaries the auditor guesses r coins, the surest, and abstains from the
others; under (ε, δ)-DP the number of right guesses is dominated by a binomial one, but for
something of order m·δ. The canaries are of different examples (or clients), so that one claim
covers each coin, and the coins are fair and independent.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy
from jaxtyping import Bool, Float

from adversary.auditing.claim import Claim
from adversary.auditing.coins import CoinedUpdates
from adversary.auditing.finding import Finding, Guarantee, check_probability
from adversary.auditing.method import Method
from adversary.auditing.trials import check_finite
from defenses.promise import Relation

LARGEST = 700.0  # no ε above it is looked for
STEPS = 60  # of bisection: 700 / 2⁶⁰
FEW = 50  # canaries; of fewer, three in four are guessed, of more every second
MANY = 1000  # canaries, of which every fourth chooses how many of the others are guessed
SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # of canaries that are guessed


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return the chance of so many right guesses under (ε, δ)-DP, or an upper bound of it.

    P[W ≥ v] ≤ P[Bin(r, q) ≥ v] + 2·m·δ·max_i P[v > Bin(r, q) ≥ v − i]/i, with q = e^ε/(1 + e^ε).

    Args:
        canaries: m.
        guesses: r, at most m.
        right: v, at most r.
        epsilon: ε.
        delta: δ.
    """
    from scipy.stats import binom  # takes as long to import as Flower does

    rate = scipy.special.expit(epsilon)
    tail = float(binom.sf(right - 1, guesses, rate))
    if not delta or not right:
        return min(1.0, tail)
    below = np.cumsum(binom.pmf(right - 1 - np.arange(right), guesses, rate))
    worst = float((below / np.arange(1, right + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * worst)


def one_run_epsilon(
    canaries: int, guesses: int, right: int, *, delta: float, confidence: float
) -> float:
    """Return the largest ε that so many right guesses refute; 0 where they refute none.

    Raises:
        ValueError: δ or confidence is no probability, or the counts do not fit.
    """
    check_probability("delta", delta)
    check_counts(canaries, guesses, right, confidence)
    refuted = lambda it: p_value(canaries, guesses, right, it, delta) <= 1 - confidence
    return largest_refuted(refuted, LARGEST, STEPS) if guesses else 0.0


def check_counts(canaries: int, guesses: int, right: int, confidence: float) -> None:
    """Refuse counts of guesses that cannot be.

    Raises:
        ValueError: The confidence is no probability, or the counts do not fit.
    """
    check_probability("confidence", confidence)
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(
            f"right: must be at most guesses, and these at most canaries, got {right} of {guesses} "
            f"of {canaries}"
        )


def largest_refuted(is_refuted: Callable[[float], bool], highest: float, steps: int) -> float:
    """Return by bisection the largest value, below `highest`, that is refuted; 0 if 0 is not."""
    if not is_refuted(0.0):
        return 0.0
    low, high = 0.0, highest
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if is_refuted(middle) else (low, middle)
    return low


def num_right(scores: Float[np.ndarray, " m"], coins: Bool[np.ndarray, " m"], guesses: int) -> int:
    """Return how many of the surest guesses, by the scores' signs, are right."""
    surest = np.argsort(-np.abs(scores), kind="stable")[:guesses]
    return int(((scores[surest] > 0) == coins[surest]).sum())


def one_run(
    scores: Float[np.ndarray, " m"],
    coins: Bool[np.ndarray, " m"],
    *,
    relation: Relation,
    guessed: float = 0.1,
    delta: float = 1e-5,
    confidence: float = 0.95,
) -> Finding:
    """Guess the coins of the highest and the lowest scores, and bound ε by how many are right.

    Which canaries are guessed depends on the scores, and how many on m alone: no coin is looked at.

    Args:
        scores: Of every canary; larger where it looks as if it were in.
        coins: Whether it was.
        relation: Between a canary that is in and one that is out.
        guessed: Share of canaries guessed at each end; at most a half.
        delta: δ.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: δ or confidence is no probability, or there are too few canaries.
    """
    _check(scores, guessed, delta=delta, confidence=confidence)
    m = len(scores)
    each = max(1, round(guessed * m))
    order = np.argsort(scores, kind="stable")
    right = int(coins[order[m - each :]].sum() + (~coins[order[:each]]).sum())
    epsilon = one_run_epsilon(m, 2 * each, right, delta=delta, confidence=confidence)
    most = one_run_epsilon(m, 2 * each, 2 * each, delta=delta, confidence=confidence)
    return Finding(
        method="one-run",
        guarantee=Guarantee.BOUND,
        epsilon=epsilon,
        delta=delta,
        confidence=confidence,
        relation=relation,
        trials=m,
        most=most,
    )


def _check(
    scores: Float[np.ndarray, " m"], guessed: float, *, delta: float, confidence: float
) -> None:
    """Refuse what nothing can be certified of.

    Raises:
        ValueError: As `one_run`.
    """
    check_probability("delta", delta)
    check_probability("confidence", confidence)
    if not 0 < guessed <= 0.5:
        raise ValueError(f"guessed: must be above 0 and at most 0.5, got {guessed:g}")
    check_finite(scores)
    least = fewest_canaries(guessed, delta=delta, confidence=confidence)
    if len(scores) < least:
        raise ValueError(
            f"canaries: must be at least {least} to certify anything at {100 * confidence:g} % "
            f"when {100 * guessed:g} % are guessed at each end, got {len(scores)}"
        )


def fewest_canaries(guessed: float, *, delta: float, confidence: float) -> int:
    """Return how many canaries could show an ε above 0, if every guess were right."""
    m = 2
    while m < 10**6:
        each = max(1, round(guessed * m))
        guesses = min(m, 2 * each)
        if one_run_epsilon(m, guesses, guesses, delta=delta, confidence=confidence) > 0:
            return m
        m += 1
    return m


def by_sign(
    scores: Float[np.ndarray, " m"],
    coins: Bool[np.ndarray, " m"],
    claim: Claim,
    confidence: float,
) -> Finding:
    """Guess the coins of the surest scores by their signs, and bound ε by how many are right.

    Unlike the highest and the lowest scores, which must be right as often as wrong where coins fell
    more often on one side.

    Args:
        scores: Of every canary; above 0 if it looks as if its coin were heads.
        coins: Whether it is.
        claim: Over the same rounds.
        confidence: That the true ε is at least as large.

    Raises:
        ValueError: There are too few canaries to show anything.
    """
    check_finite(scores)
    show = partial(one_run_epsilon, delta=claim.delta, confidence=confidence)
    scores, coins, guesses = certifying(scores, coins, show)
    m = len(scores)
    most = one_run_epsilon(m, guesses, guesses, delta=claim.delta, confidence=confidence)
    if most <= 0:
        least = fewest(delta=claim.delta, confidence=confidence)
        raise ValueError(
            f"canaries: must be at least {least} to certify anything at "
            f"{100 * confidence:g} %, got {m}"
        )
    right = num_right(scores, coins, guesses)
    return Finding(
        method="one-run",
        guarantee=Guarantee.BOUND,
        epsilon=one_run_epsilon(m, guesses, right, delta=claim.delta, confidence=confidence),
        delta=claim.delta,
        confidence=confidence,
        relation=claim.relation,
        trials=m,
        most=most,
    )


def of_updates(updates: CoinedUpdates, claim: Claim, confidence: float) -> Finding:
    """Guess the coins of clients' sums by their signs."""
    return by_sign(updates.sums, updates.coins, claim, confidence)


def certifying(
    scores: Float[np.ndarray, " m"],
    coins: Bool[np.ndarray, " m"],
    show: Callable[[int, int, int], float],
) -> tuple[Float[np.ndarray, " k"], Bool[np.ndarray, " k"], int]:
    """Return the canaries that certify, and how many of them are guessed, which no coin decides.

    Of `MANY` or more every fourth canary chooses the share that shows most. In simulations of a
    Gaussian mechanism with μ from 0.5 to 5 that gains more than it costs; of fewer it does not.

    Args:
        scores: Of every canary.
        coins: Whether it is in.
        show: (canaries, guesses, right ones) → what they show.
    """
    m = len(scores)
    if m < MANY:
        return scores, coins, num_guesses(m)
    choose = np.arange(m) % 4 == 0
    first, some = (scores[choose], coins[choose]), int(choose.sum())
    numbers = {share: max(1, round(share * some)) for share in SHARES}
    share = max(SHARES, key=lambda each: show(some, n := numbers[each], num_right(*first, n)))
    return scores[~choose], coins[~choose], max(1, round(share * (m - some)))


def num_guesses(canaries: int) -> int:
    """Return how many coins are guessed: a number that no score has a part in."""
    return math.ceil(0.75 * canaries) if canaries < FEW else canaries // 2


def fewest(*, delta: float, confidence: float) -> int:
    """Return how many canaries could show an ε above 0, if every guess were right."""
    m = 1
    while m < 10**6:
        guesses = num_guesses(m)
        if one_run_epsilon(m, guesses, guesses, delta=delta, confidence=confidence) > 0:
            return m
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


METHOD = Method(
    name="one-run",
    title="one run",
    guarantee=Guarantee.BOUND,
    how="coins guessed in one run",
    of_updates=of_updates,
    of_records=by_sign,
)
