"""Membership scores of rehearsed clients, whose members are known, and of a client like them."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adversary.members.candidates import asking_of_auxiliary, cosines
from adversary.members.references import (
    Read,
    chosen_factor,
    dealt,
    dominated,
    log_likelihood,
    mean_likelihood,
    read,
    with_factor,
)
from adversary.members.scores import moments
from adversary.members.shadows import shown
from adversary.workspace import Workspace
from fedsim.core.types import Auxiliary, Candidates, Observation

CLIENTS = 64  # of one size, at most

Score = Literal["rmia", "cosine"]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a score says of clients whose members are known.

    Attributes:
        score: `rmia`: the likelihood ratio p(x | θ) / p(x), as the share of records that nobody
            trained on which it is above; `cosine`: in standard deviations above clients that do
            not have the record.
        asking: An adversary that asks about the records of the sets, and then about a pool.
        signals: Of these records under every rehearsed client, shape (clients, m + n).
        use: Which of them the client did not have.
        factor: RMIA's a.
        scores: Of the pool, every client scored by the others, shape (clients, n).
        members: Which of the pool the client trained on.
        reading: How an upload is read before the records are asked about; None as it is.
    """

    score: Score
    asking: Auxiliary
    signals: Float[Tensor, "clients records"]
    use: Bool[Tensor, "clients records"]
    factor: float
    scores: Float[Tensor, "clients n"]
    members: Bool[Tensor, "clients n"]
    reading: Read | None = None


def calibration(
    work: Workspace, size: int, score: Score, reading: Read | None, *, in_training: bool = False
) -> Calibration:
    """Score rehearsed clients of one size.

    Args:
        work: With auxiliary data and sets.
        size: Their number of examples.
        score: Which.
        reading: How uploads are read; None as they are.
        in_training: Whether records' gradients are taken through a defense inside training.
    """
    sets, pool = work.auxiliary.sets, asking_of_auxiliary(work.auxiliary).candidates
    assert sets is not None
    assert pool is not None
    records = Candidates(
        torch.cat([sets.inputs, pool.inputs]), torch.cat([sets.labels, pool.labels])
    )
    defense = work.auxiliary.defense if in_training else None
    asking = replace(work.auxiliary, candidates=records, defense=defense)
    clients = dealt(work, pool, size, most=CLIENTS)
    uploads = [read(shown(client, work), reading) for client in clients]
    signals = torch.stack([_signal(upload, work, asking, score) for upload in uploads])
    members = torch.stack([client.members for client in clients])
    count = len(sets.labels)
    use = torch.cat([torch.ones(len(uploads), count, dtype=torch.bool), ~members], dim=1)
    factor = chosen_factor(signals[:, count:], members, pool.labels) if score == "rmia" else 1.0
    scores = []
    for place in range(len(uploads)):
        others = use.clone()
        others[place] = False
        value = _calibrated(signals[place], signals, others, factor, score)
        pooled, out = value[count:], ~members[place]
        scores.append(_ranked(pooled, pool.labels, pooled[out], pool.labels[out], score))
    return Calibration(score, asking, signals, use, factor, torch.stack(scores), members, reading)


def target_scores(
    observation: Observation, work: Workspace, fitted: Calibration
) -> Float[Tensor, " m"]:
    """Return a client's score of every record of the sets.

    Raises:
        ValueError: The update is not finite.
    """
    upload = read(observation, fitted.reading)
    signal = _signal(upload, work, fitted.asking, fitted.score)
    value = _calibrated(signal, fitted.signals, fitted.use, fitted.factor, fitted.score)
    count = len(value) - fitted.members.shape[1]
    assert fitted.asking.candidates is not None
    labels = fitted.asking.candidates.labels
    return _ranked(value[:count], labels[:count], value[count:], labels[count:], fitted.score)


def _signal(
    observation: Observation, work: Workspace, asking: Auxiliary, score: Score
) -> Float[Tensor, " records"]:
    if score == "rmia":
        return log_likelihood(observation, asking)
    return cosines(observation, work.knowing(asking))


def _calibrated(
    signal: Float[Tensor, " records"],
    others: Float[Tensor, "clients records"],
    use: Bool[Tensor, "clients records"],
    factor: float,
    score: Score,
) -> Float[Tensor, " records"]:
    """Return a signal compared with that of the clients that `use` names."""
    if score == "rmia":
        return signal - with_factor(mean_likelihood(others, use), factor)
    mean, deviation = moments(others, use)
    return (signal - mean) / deviation


def _ranked(
    value: Float[Tensor, " m"],
    labels: Int[Tensor, " m"],
    population: Float[Tensor, " n"],
    others: Int[Tensor, " n"],
    score: Score,
) -> Float[Tensor, " m"]:
    """Return values compared with those of the population of the same label, under the same update.

    A client with many examples of a class raises all records of it. Compared with all records
    where the population has fewer than two of the label.
    """
    ranked = torch.zeros_like(value)
    for label in labels.unique().tolist():
        mine, alike = labels == label, population[others == label]
        alike = alike if len(alike) > 1 else population
        if score == "rmia":
            ranked[mine] = dominated(value[mine], alike, 1.0)
        else:
            ranked[mine] = (value[mine] - alike.mean()) / alike.std(
                correction=min(1, len(alike) - 1)
            ).clamp(min=1e-12)
    return ranked
