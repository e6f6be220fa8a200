"""How likely records are under reference models: what a client's local model is compared with.

A reference model is the local model of a rehearsed client. *Offline*, it was trained on auxiliary
records alone. *Online*, the candidates are trained on, too: candidates and auxiliary records are
dealt out to clients, so that each record is with at least one of them and missing from another.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adversary.members.candidates import losses_after
from adversary.members.scores import within_classes
from adversary.members.shadows import SHADOWS, Shadow, shadows, shown, trained
from adversary.workspace import Workspace
from fedsim.core.params import not_finite
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, Candidates, Observation, Update

LEARNED = slice(1, None, 2)  # rehearsed clients that no reading of uploads was learned from
FACTORS = tuple(k / 10 for k in range(11))  # a: the grid of the authors

Read = Callable[[Observation], Observation]
"""An upload as it came → as it is read, by who knows the defense."""


@dataclass(frozen=True, eq=False)
class References:
    """Log-probabilities log p(x) of the right label, without knowing what the client has.

    Attributes:
        candidates: Of every candidate, shape (m,).
        population: Of every record of the population, shape (n,).
        asking: An adversary that asks about the population.
        reading: How an upload is read before either is asked about; None as it is.
    """

    candidates: Float[Tensor, " m"]
    population: Float[Tensor, " n"]
    asking: Auxiliary
    reading: Read | None


def read(observation: Observation, reading: Read | None) -> Observation:
    """Return an observation whose upload is read so; as it is without a reading."""
    return observation if reading is None else reading(observation)


def log_likelihood(observation: Observation, auxiliary: Auxiliary) -> Float[Tensor, " m"]:
    """Return log p(label | input) of every candidate under a client's local model.

    An uploaded gradient is followed by one step of the protocol's length. For a sum over several
    clients, the model is their mean.

    Args:
        observation: Weights sent, and the update.
        auxiliary: With candidates.

    Raises:
        ValueError: The update is not finite, or the local model computes what is not.
    """
    if reason := not_finite(observation.update.delta):
        raise ValueError(f"update: {reason}")
    return -losses_after(observation, auxiliary, smoothing=0.0)


def offline(
    work: Workspace, size: int, a: float | None, asking: Auxiliary, reading: Read | None
) -> References:
    """Return p(x) = ½ ((1 + a) p_out(x) + 1 − a): no reference model had a candidate.

    Args:
        work: With auxiliary data.
        size: Examples of a rehearsed client.
        a: How far training on a record raises its likelihood: p_in = a · p_out + 1 − a. None for
            the value with which the rehearsed clients' own records are told best.
        asking: With the candidates.
        reading: How uploads are read, learned from all but the `LEARNED` clients; None as they are.
    """
    rehearsed = shadows(work, size)
    clients = rehearsed.clients if reading is None else rehearsed.clients[LEARNED]
    uploads = [read(shown(client, work), reading) for client in clients]
    out, pool = under(uploads, asking), under(uploads, rehearsed.auxiliary)
    members = torch.stack([client.members for client in clients])
    if a is None:
        assert rehearsed.auxiliary.candidates is not None
        a = chosen_factor(pool, members, rehearsed.auxiliary.candidates.labels)
    everyone = torch.ones_like(out, dtype=torch.bool)
    return References(
        with_factor(mean_likelihood(out, everyone), a),
        with_factor(mean_likelihood(pool, ~members), a),
        rehearsed.auxiliary,
        reading,
    )


def online(work: Workspace, size: int, reading: Read | None) -> References:
    """Return p(x) = ½ (p_in(x) + p_out(x)), from clients to which all records are dealt out."""
    population = shadows(work, size).auxiliary
    candidates, others = work.auxiliary.candidates, population.candidates
    assert candidates is not None
    assert others is not None
    records = Candidates(
        torch.cat([candidates.inputs, others.inputs]), torch.cat([candidates.labels, others.labels])
    )
    clients = dealt(work, records, size)
    uploads = [read(shown(client, work), reading) for client in clients]
    values = under(uploads, replace(work.auxiliary, candidates=records))
    members = torch.stack([client.members for client in clients])
    sides = [mean_likelihood(values, use) for use in (members, ~members)]
    base = torch.logaddexp(*sides) - math.log(2)
    count = len(candidates.labels)
    return References(base[:count], base[count:], population, reading)


def chosen_factor(
    values: Float[Tensor, "clients n"], members: Bool[Tensor, "clients n"], labels: Tensor
) -> float:
    """Return the factor a with which rehearsed clients' own records are told best by the others.

    Args:
        values: log p of every record under every rehearsed client's model.
        members: Whether the client trained on it.
        labels: Of the records, shape (n,).
    """
    aurocs = torch.zeros(len(FACTORS), dtype=torch.float64)
    for place in range(len(values)):
        others = ~members
        others[place] = False
        base = mean_likelihood(values, others)
        for k, a in enumerate(FACTORS):
            score = values[place] - with_factor(base, a)
            auroc = within_classes(score, members[place], labels)["auroc"]
            aurocs[k] += 0.0 if math.isnan(auroc) else auroc
    return FACTORS[int(aurocs.argmax())]


def with_factor(log_out: Float[Tensor, " n"], a: float) -> Float[Tensor, " n"]:
    """Return log ½ ((1 + a) p_out + 1 − a)."""
    return ((1 + a) / 2 * log_out.exp() + (1 - a) / 2).log() if a < 1 else log_out


def mean_likelihood(
    values: Float[Tensor, "clients n"], use: Bool[Tensor, "clients n"]
) -> Float[Tensor, " n"]:
    """Return the log of the mean likelihood over the clients that `use` names.

    Over all clients, where it names none.
    """
    use = use | ~use.any(dim=0)
    total = values.masked_fill(~use, -torch.inf).logsumexp(dim=0)
    return total - use.sum(dim=0).log()


def dominated(
    ratio: Float[Tensor, " m"], population: Float[Tensor, " n"], gamma: float
) -> Float[Tensor, " m"]:
    """Return for every x the share of z with ratio(x) / ratio(z) > γ, where a tie counts half.

    Args:
        ratio: log p(x | θ) / p(x).
        population: The same for z.
        gamma: γ.
    """
    ordered, value = population.sort().values, ratio - math.log(gamma)
    above, least = (torch.searchsorted(ordered, value, right=side) for side in (False, True))
    return (above + least).double() / (2 * len(population))


def under(uploads: Sequence[Observation], auxiliary: Auxiliary) -> Float[Tensor, "clients m"]:
    """Return log p of an adversary's candidates under each rehearsed client's local model."""
    return torch.stack([log_likelihood(upload, auxiliary) for upload in uploads])


def dealt(
    work: Workspace, records: Candidates, size: int, *, most: int | None = None
) -> list[Shadow]:
    """Deal records out to rehearsed clients, as often as it takes for enough of them.

    Args:
        work: Of the model that they start from.
        records: Their examples.
        size: Of a client; half of the records at most.
        most: Clients; None for as many as have all records.
    """
    count = len(records.labels)
    size = max(1, min(size, count // 2))
    hands = -(-count // size)
    like = Observation(work.sent, Update(1, "shadow", {}, size), work.local)
    every = list[Tensor]()
    for deal in range(-(-SHADOWS[work.local.upload] // hands)):
        order = torch.randperm(count, generator=derived(0, "deal", deal))
        order = torch.cat([order, order[: hands * size - count]])
        every += order.split(size)
    return trained(like, work, records, every[:most], "reference")
