"""The audit of a round: canaries in the recorded uploads, beside what theory claims.

Uploads are scored without any truth; coins are read from the clients' truth and used for nothing
but grading. What earlier rounds say is kept, or read again from the tape where the run was resumed:
its rows are the same.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adversary.auditing import in_rounds
from adversary.auditing.claim import Claim
from adversary.auditing.coins import CoinedUpdates
from adversary.auditing.finding import METRICS, Finding
from adversary.auditing.in_rounds import IN_ROUNDS, OF_RECORDS
from adversary.auditing.uploads import ClientScores
from adversary.grading.truth import read_coins
from clients import carried
from fedsim.audit.round_scores import Evidence, Scored, values
from fedsim.core.rows import Leak, Measure, Note
from fedsim.run.claims import claimed
from fedsim.run.ledger import AUDIT
from fedsim.run.notes import row_of
from fedsim.run.prepare import Plan
from fedsim.run.run_folder import RunFolder

FPR = 0.01  # at which an ε allows a true positive rate


@dataclass(frozen=True)
class AuditedRound:
    """What an audit leaves in the run folder: ledger rows, metrics rows, scores by `audit/client`.

    A score per upload of an update canary; of record canaries one per coin.
    """

    leaks: list[Leak] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    scores: dict[str, Tensor] = field(default_factory=dict)


def is_due(plan: Plan, round_: int) -> bool:
    """Return whether a round is audited: every k-th one, and the last."""
    audit = plan.config.audit
    last = plan.config.federation.rounds
    return bool(audit.clients) and (round_ % audit.every == 0 or round_ == last)


def audit_round(plan: Plan, folder: RunFolder, round_: int) -> AuditedRound:
    """Audit all rounds until one, if that is due.

    Raises:
        BadRecording: A file is damaged or foreign.
    """
    promise = carried.promise_of(plan.defense)
    if not is_due(plan, round_) or promise is None:
        return AuditedRound()
    evidence = plan.memory.get(Evidence, folder.path, Evidence, keep=1)
    if evidence.round > round_:
        evidence = Evidence()
    evidence.list_until(plan, folder, round_)
    rounds_of = evidence.rounds
    if not rounds_of:
        note = _note(round_, AUDIT, "none of the audited clients took part")
        return AuditedRound(measures=[note])
    sizes = [len(rows) for rows in plan.federated.clients]
    counts = {client: len(rounds) for client, rounds in rounds_of.items()}
    claim = claimed(plan.config.audit, promise, plan.local, sizes, counts)
    begun = time.perf_counter()
    scored = {client: evidence.score(plan, folder, client) for client in rounds_of}
    seconds = time.perf_counter() - begun
    coins = _coins(folder, rounds_of)
    findings, reasons, tpr = _graded(scored, coins, claim, plan.config.audit.confidence)
    return AuditedRound(
        [
            _row(round_, name, findings.get(name), claim, seconds)
            for name in (OF_RECORDS if claim.relation is carried.RECORD else IN_ROUNDS)
            if name in findings or not coins
        ],
        [*_theory(round_, claim, tpr), *_limits(round_, findings, reasons)],
        {f"{AUDIT}/{client}": torch.from_numpy(values(each)) for client, each in scored.items()},
    )


def _coins(folder: RunFolder, rounds_of: Mapping[str, list[int]]) -> dict[str, NDArray[np.bool_]]:
    """Return the coins of the clients that reveal theirs."""
    coins = {
        client: read_coins(folder.truth, rounds[-1], client) for client, rounds in rounds_of.items()
    }
    return {client: each.numpy() for client, each in coins.items() if each is not None}


def _graded(
    scored: Mapping[str, Scored],
    coins: Mapping[str, NDArray[np.bool_]],
    claim: Claim,
    confidence: float,
) -> tuple[dict[str, Finding], dict[str, str], float | None]:
    """Compare scores with the coins of the clients that reveal them.

    Returns:
        Findings and reasons by method, and the audited test's true positive rate.
    """
    if not coins:
        return {}, {}, None
    true = np.concatenate(list(coins.values()))
    clients = [each for c, each in scored.items() if c in coins and isinstance(each, ClientScores)]
    if clients:
        updates = CoinedUpdates(clients, true)
        results = in_rounds.of_updates(updates, claim, confidence)
        return *results, in_rounds.tpr_at(updates.sums, true, FPR)
    scores = np.concatenate([values(scored[client]) for client in coins])
    results = in_rounds.of_records(scores, true, claim, confidence)
    return *results, in_rounds.tpr_at(scores, true, FPR)


def _row(round_: int, name: str, finding: Finding | None, claim: Claim, seconds: float) -> Leak:
    value = None if finding is None else finding.epsilon
    metric = METRICS[IN_ROUNDS[name].guarantee]
    return Leak(
        round=round_,
        client=None,
        attack=name,
        family=AUDIT,
        metric=metric,
        value=value,
        outcome="no truth" if finding is None else "graded",
        blind=0.0,
        seconds=seconds,
        ceiling=claim.epsilon,
    )


def _theory(round_: int, claim: Claim, tpr: float | None) -> list[Measure]:
    about = (
        f"{claim.relation}; {claim.mechanism}; δ = {claim.delta:g}; client {claim.client} in "
        f"{claim.rounds} round{'s' * (claim.rounds > 1)}"
    )
    at = f"of membership, at a false positive rate of {FPR:g}"
    rows = [
        Measure(round_, AUDIT, "epsilon_theory", claim.epsilon, None, about),
        Measure(round_, AUDIT, "tpr_allowed", claim.tpr_at(FPR), None, at),
    ]
    return rows + ([] if tpr is None else [Measure(round_, AUDIT, "tpr_audited", tpr, None, at)])


def _limits(
    round_: int, findings: Mapping[str, Finding], reasons: Mapping[str, str]
) -> list[Measure]:
    """Return how many trials are behind each number, what it assumes, and what it could show."""
    rows = [_note(round_, name, reason) for name, reason in reasons.items()]
    for name, finding in findings.items():
        most = finding.most if math.isfinite(finding.most) else None
        trials = finding.trials
        rows.append(Measure(round_, AUDIT, f"{name}_trials", trials, None, finding.assumes))
        rows.append(Measure(round_, AUDIT, f"{name}_most", most))
    return rows


def _note(round_: int, name: str, reason: str) -> Measure:
    return row_of(Note(round=round_, client=None, attack=name, reason=reason, split=AUDIT))
