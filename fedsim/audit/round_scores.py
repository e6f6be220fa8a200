"""Scores of the canaries in recorded uploads, without a look at the clients' coins."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import defenses
from adversary.auditing import uploads
from clients import carried
from fedsim import models
from fedsim.config import Part
from fedsim.run.prepare import Plan
from fedsim.run.run_folder import RunFolder
from strategies.tape import recorded_clients
from strategies.tape_views import observation

Scored = uploads.ClientScores | NDArray[np.float64]
"""Of an update canary, or of every record canary."""
LARGEST = 2**29  # bytes


class Evidence:
    """What the uploads of a run's audited clients say of their canaries, up to some round.

    Rounds are read from the tape once, in order. What is kept of a client are sums, up to `LARGEST`
    bytes of them in all: beyond that a client's uploads are read again.
    """

    def __init__(self) -> None:
        self.round = 0
        self.rounds: dict[str, list[int]] = {}
        """The rounds in which each audited client took part."""
        self._scores: dict[str, tuple[int, uploads.UpdateScores | uploads.RecordScores]] = {}

    def list_until(self, plan: Plan, folder: RunFolder, round_: int) -> None:
        """List who took part up to a round, which is not before the last one listed."""
        audit = plan.config.audit
        for number in range(self.round + 1, round_ + 1):
            for client in recorded_clients(folder.path, number):
                if carried.relation_of(audit, plan.defense, client):
                    self.rounds.setdefault(client, []).append(number)
        self.round = round_

    def score(self, plan: Plan, folder: RunFolder, client: str) -> Scored:
        """Score one client's uploads in the rounds that are listed.

        Raises:
            BadRecording: A file is damaged or foreign.
        """
        read, scores = self._scores.pop(client, None) or (0, _scores_of(plan, client))
        rounds = self.rounds[client]
        for number in rounds[read:]:
            scores.add(observation(folder.path, number, client, plan.local))
        kept = sum(other.nbytes for _, other in self._scores.values())
        if kept + scores.nbytes <= LARGEST:
            self._scores[client] = len(rounds), scores
        return scores.result()


def values(scored: Scored) -> NDArray[np.float64]:
    """Return a score per upload of an update canary, or one per record canary."""
    return scored.scores if isinstance(scored, uploads.ClientScores) else scored


def _scores_of(plan: Plan, client: str) -> uploads.UpdateScores | uploads.RecordScores:
    audit, defense = plan.config.audit, plan.config.defense
    if carried.relation_of(audit, plan.defense, client) is carried.UPDATE:
        return _of_update(plan, client)
    dataset, seed = plan.federated.dataset, plan.config.seed
    canaries = carried.records(dataset.form, audit.records, seed, client)
    plan.model.eval()
    num_examples = len(plan.federated.clients[int(client)]) + audit.records
    return uploads.RecordScores(plan.model, *canaries, _clip(defense), num_examples)


def _of_update(plan: Plan, client: str) -> uploads.UpdateScores:
    seed, links = plan.config.seed, defenses.links(plan.config.defense)
    weights = plan.model.state_dict()
    like = {name: weights[name] for name in models.trainable(plan.model)}
    size = carried.reach(links)
    canary = {n: size * v for n, v in carried.direction(like, seed, client).items()}
    return uploads.UpdateScores(uploads.template(links, canary, seed), carried.turn)


def _clip(parts: Sequence[Part]) -> float:
    """Return the clip of DP-SGD; infinite without it."""
    clips = (part.options.get("clip", 1.0) for part in parts if part.name == "dp-sgd")
    return next(clips, math.inf)
