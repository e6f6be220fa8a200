"""Scores of the canaries in one client's recorded uploads, without a look at its coins."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

import defenses
from adversary.auditing import uploads
from clients import carried
from fedsim import models
from fedsim.config import Part
from fedsim.core.types import Observation
from fedsim.run.prepare import Plan
from fedsim.run.run_folder import RunFolder
from strategies.tape import history

Scored = uploads.ClientScores | NDArray[np.float64]
"""Of an update canary, or of every record canary."""


def score(plan: Plan, folder: RunFolder, client: str, round_: int) -> Scored:
    """Score one client's uploads until a round."""
    observations = history(folder.path, client, round_, plan.local)
    audit = plan.config.audit
    if carried.relation_of(audit, plan.defense, client) is carried.UPDATE:
        return _of_update(plan, client, observations)
    return _of_records(plan, client, observations)


def values(scored: Scored) -> NDArray[np.float64]:
    """Return a score per upload of an update canary, or one per record canary."""
    return scored.scores if isinstance(scored, uploads.ClientScores) else scored


def _of_update(
    plan: Plan, client: str, observations: Iterable[Observation]
) -> uploads.ClientScores:
    seed, links = plan.config.seed, defenses.links(plan.config.defense)
    weights = plan.model.state_dict()
    like = {name: weights[name] for name in models.trainable(plan.model)}
    size = carried.reach(links)
    canary = {n: size * v for n, v in carried.direction(like, seed, client).items()}
    turned = ((each.update.delta, carried.turn(each.update.round)) for each in observations)
    return uploads.score_uploads(turned, uploads.template(links, canary, seed))


def _of_records(
    plan: Plan, client: str, observations: Iterable[Observation]
) -> NDArray[np.float64]:
    dataset, count = plan.federated.dataset, plan.config.audit.records
    shape, classes, seed = dataset.input_shape, dataset.num_classes, plan.config.seed
    canaries = carried.records(shape, classes, count, seed, client)
    plan.model.eval()
    scores = uploads.RecordScores(plan.model, *canaries, _clip(plan.config.defense))
    for each in observations:
        scores.add(each, len(plan.federated.clients[int(client)]) + count)
    return scores.scores()


def _clip(parts: Sequence[Part]) -> float:
    """Return the clip of DP-SGD; infinite without it."""
    clips = (part.options.get("clip", 1.0) for part in parts if part.name == "dp-sgd")
    return next(clips, math.inf)
