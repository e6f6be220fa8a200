"""The audit of a round: canaries in the recorded uploads, beside what theory claims.

Uploads are scored without any truth; coins are read from the clients' truth and used for nothing
but grading. Whatever was found in an earlier round is worked out again from the tape, so that a
resumed run has the same rows.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import defenses
from adversary.auditing import in_rounds, uploads
from adversary.auditing.finding import METRICS, Finding
from adversary.auditing.in_rounds import METHODS, OF_RECORDS, Claim
from adversary.grading.truth import read_coins
from clients import carried
from fedsim import models
from fedsim.core.types import Leak, Measure
from fedsim.run.audit_claims import claimed
from fedsim.run.ledger import AUDIT
from fedsim.run.prepare import Plan
from fedsim.run.run_folder import RunFolder
from strategies.tape import history, recorded_clients, recorded_rounds

FPR = 0.01  # at which the true positive rate is told that an ε allows


@dataclass(frozen=True)
class Audited:
    """What there is to keep of an audit: ledger rows, metrics rows, and scores by `audit/client`.

    A score per upload of an update canary; of record canaries one per coin.
    """

    leaks: list[Leak] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    scores: dict[str, Tensor] = field(default_factory=dict)


def is_due(plan: Plan, round_: int) -> bool:
    """Return whether a round is audited: every k-th one, and the last."""
    asked = plan.config.audit
    last = plan.config.federation.rounds
    return bool(asked.clients) and (round_ % asked.every == 0 or round_ == last)


def audit_round(plan: Plan, folder: RunFolder, round_: int) -> Audited:
    """Audit all rounds until one, where that is due.

    Raises:
        BadRecording: A file is damaged or foreign.
    """
    promise = carried.promise_of(plan.defense)
    if not is_due(plan, round_) or promise is None:
        return Audited()
    rounds_of = _rounds_of(plan, folder, round_)
    if not rounds_of:
        return Audited(measures=[_note(round_, AUDIT, "none of the audited clients took part")])
    sizes = [len(rows) for rows in plan.federated.clients]
    claim = claimed(plan.config, promise, plan.local, sizes, rounds_of_numbers(rounds_of))
    begun = time.perf_counter()
    heard = {client: _heard(plan, folder, client, round_) for client in rounds_of}
    seconds = time.perf_counter() - begun
    coins = {
        client: read_coins(folder.truth, rounds[-1], client) for client, rounds in rounds_of.items()
    }
    known = {client: told.numpy() for client, told in coins.items() if told is not None}
    found, reasons, tpr = _graded(heard, known, claim)
    return Audited(
        [
            _row(round_, name, found.get(name), claim, seconds)
            for name in _methods(claim)
            if name in found or not known
        ],
        [*_theory(round_, claim, tpr), *_told(round_, found, reasons)],
        {f"{AUDIT}/{client}": torch.from_numpy(_scores(it)) for client, it in heard.items()},
    )


def rounds_of_numbers(rounds_of: Mapping[str, list[int]]) -> dict[str, int]:
    """Return how many rounds each client took part in."""
    return {client: len(rounds) for client, rounds in rounds_of.items()}


def _methods(claim: Claim) -> tuple[str, ...]:
    return OF_RECORDS if claim.relation == carried.RECORD else tuple(METHODS)


def _rounds_of(plan: Plan, folder: RunFolder, round_: int) -> dict[str, list[int]]:
    """Return the rounds in which each audited client took part, of those until one."""
    taken: dict[str, list[int]] = {}
    for number in recorded_rounds(folder.path):
        for client in recorded_clients(folder.path, number) if number <= round_ else ():
            if carried.relation_of(plan.config.audit, plan.defense, client):
                taken.setdefault(client, []).append(number)
    return taken


Scored = uploads.Heard | NDArray[np.float64]


def _heard(plan: Plan, folder: RunFolder, client: str, round_: int) -> Scored:
    """Score one client's uploads, without a look at its coins."""
    config, seen = plan.config, history(folder.path, client, round_, plan.local)
    if carried.relation_of(config.audit, plan.defense, client) == carried.UPDATE:
        links, weights = defenses.links(config.defense), plan.model.state_dict()
        like = {name: weights[name] for name in models.trainable(plan.model)}
        size = carried.reach(links)
        canary = {n: size * v for n, v in carried.direction(like, config.seed, client).items()}
        turned = ((one.update.delta, carried.turn(one.update.round)) for one in seen)
        return uploads.hear(turned, uploads.template(links, canary, config.seed))
    dataset, count = plan.federated.dataset, config.audit.records
    records = carried.records(dataset.input_shape, dataset.num_classes, count, config.seed, client)
    clip = next(
        (p.options.get("clip", 1.0) for p in config.defense if p.name == "dp-sgd"), math.inf
    )
    plan.model.eval()
    evidence = uploads.Evidence(plan.model, *records, clip)
    for one in seen:
        evidence.add(one, len(plan.federated.clients[int(client)]) + count)
    return evidence.scores()


def _scores(heard: Scored) -> NDArray[np.float64]:
    return heard.scores if isinstance(heard, uploads.Heard) else heard


def _graded(
    heard: Mapping[str, Scored], coins: Mapping[str, NDArray[np.bool_]], claim: Claim
) -> tuple[dict[str, Finding], dict[str, str], float | None]:
    """Hold scores against the coins that are known.

    Returns:
        Findings and reasons by method, and the audited test's own true positive rate.
    """
    if not coins:
        return {}, {}, None
    true = np.concatenate(list(coins.values()))
    of_updates = [it for c, it in heard.items() if c in coins and isinstance(it, uploads.Heard)]
    if of_updates:
        summed = np.array([one.scores.sum() for one in of_updates])
        return *in_rounds.of_updates(of_updates, true, claim), in_rounds.tpr_at(summed, true, FPR)
    scores = np.concatenate([_scores(heard[client]) for client in coins])
    return *in_rounds.of_records(scores, true, claim), in_rounds.tpr_at(scores, true, FPR)


def _row(round_: int, name: str, found: Finding | None, claim: Claim, seconds: float) -> Leak:
    value = None if found is None else found.epsilon
    metric = METRICS[METHODS[name]]
    return Leak(round_, None, name, AUDIT, metric, value, 0.0, seconds, claim.epsilon)


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


def _told(round_: int, found: Mapping[str, Finding], reasons: Mapping[str, str]) -> list[Measure]:
    """Return how many trials are behind each number, what it assumes, and what it could show."""
    rows = [_note(round_, name, why) for name, why in reasons.items()]
    for name, it in found.items():
        most = it.most if math.isfinite(it.most) else None
        rows.append(Measure(round_, AUDIT, f"{name}_trials", it.trials, None, it.assumes))
        rows.append(Measure(round_, AUDIT, f"{name}_most", most))
    return rows


def _note(round_: int, name: str, why: str) -> Measure:
    return Measure(round_, AUDIT, f"{name}_note", 1.0, None, why)
