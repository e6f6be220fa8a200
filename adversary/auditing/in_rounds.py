"""What the canaries of a federation's rounds show of ε, held against their coins.

Record canaries share batches and a model: of them only one-run auditing has a theorem.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float

from adversary.auditing import METHODS
from adversary.auditing.claim import Claim
from adversary.auditing.coins import CoinedUpdates, split_by
from adversary.auditing.finding import Finding
from adversary.auditing.method import Method

IN_ROUNDS: dict[str, Method] = {
    f"audit-{name}": method for name, method in METHODS.items() if method.of_updates
}
"""Name in the ledger → what is tried in every audited round."""
OF_RECORDS = tuple(name for name, method in IN_ROUNDS.items() if method.of_records)

Results = tuple[dict[str, Finding], dict[str, str]]
"""Findings, and why a method has none, by the name in the ledger."""


def of_updates(updates: CoinedUpdates, claim: Claim, confidence: float) -> Results:
    """Return what update canaries show.

    Args:
        updates: Of every client.
        claim: Over the same rounds.
        confidence: Of bounds and credible intervals.
    """
    return _tried(
        {
            name: lambda use=method.of_updates: use(updates, claim, confidence)
            for name, method in IN_ROUNDS.items()
            if method.of_updates
        }
    )


def of_records(
    scores: Float[np.ndarray, " m"],
    coins: Bool[np.ndarray, " m"],
    claim: Claim,
    confidence: float,
) -> Results:
    """Return what the record canaries of all clients show."""
    return _tried(
        {
            name: lambda use=method.of_records: use(scores, coins, claim, confidence)
            for name, method in IN_ROUNDS.items()
            if method.of_records
        }
    )


def tpr_at(
    scores: Float[np.ndarray, " m"], coins: Bool[np.ndarray, " m"], fpr: float
) -> float | None:
    """Return the audited test's true positive rate; None if too few coins are tails."""
    trials = split_by(scores, coins)
    if len(trials.without) * fpr < 10 or not len(trials.having):
        return None
    return float((trials.having > np.quantile(trials.without, 1 - fpr)).mean())


def _tried(methods: Mapping[str, Callable[[], Finding]]) -> Results:
    """Return every method's answer, or the sentence in which it says why it has none."""
    findings, reasons = {}, {}
    for name, method in methods.items():
        try:
            findings[name] = method()
        except ValueError as error:
            reasons[name] = str(error)
    return findings, reasons
