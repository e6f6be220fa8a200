"""EB-GLS and its peers stacked: each answer weighs what it was worth on rehearsed clients.

Over many local steps of a trained model the evidence is far surer of itself than it may be: what
an example adds then depends on which others there are. How far it errs, and where others err less,
is rehearsed: clients of even and of uneven labels are made of auxiliary data, train as the protocol
says, and are attacked (`adversary.labels.stacking`). Clients that are sent one model share them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attacks.geng import zlg_plus
from adversary.attacks.ilrg import ilrg
from adversary.attacks.llg import llg, llg_star
from adversary.attacks.rlu import rlu
from adversary.labels.counts import round_counts
from adversary.labels.moments import with_every_class
from adversary.labels.reading import end_state
from adversary.labels.stacking import Stack, stack
from adversary.rehearsal import rehearse_all
from adversary.workspace import Workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Observation, Update, View

Answer: TypeAlias = Callable[[Observation, Workspace], Int[Tensor, " classes"]]
"""Counts of a client's examples, each used once."""

PEERS = (llg, llg_star, zlg_plus, ilrg, rlu)
CLIENTS = (math.inf, 0.5, math.inf, 0.2, 1.0) * 3
"""Concentration of the labels of each rehearsed client; infinite where they are even."""
FIRST = 4  # rehearsals after which a plain answer may be good enough
GOOD = 0.97  # of the labels: then the plain answer stands
LARGEST = 256  # examples of a rehearsed client


@dataclass(frozen=True)
class Rehearsed:
    """What came of the rehearsals.

    Attributes:
        stack: What answers are worth; None where the plain one is best.
        peers: Which of `PEERS` answer besides.
    """

    stack: Stack | None
    peers: tuple[int, ...] = ()


def stacked(
    observation: Observation, work: Workspace, counts: Int[Tensor, " classes"], plain: Answer
) -> Int[Tensor, " classes"]:
    """Return the counts of a client's examples that its peers' answers make of a plain one.

    Of a single local step, and of a cohort, the plain answer stands.

    Args:
        observation: The client's.
        work: With auxiliary inputs and labels.
        counts: The plain answer.
        plain: What answers so.
    """
    total = int(counts.sum())
    if end_state(observation) is None or observation.update.num_clients > 1:
        return counts
    size = min(LARGEST, 4 ** round(math.log(max(1, total), 4)))
    if size > 1 and size % observation.local.batch_size == 1:
        size -= 1  # no batch norm trains on one example
    work = work.derived(with_every_class)
    rehearsed = work.part(rehearsals, size, plain)
    if rehearsed.stack is None:
        return counts
    columns = [counts, *(_peer(k, observation, work) for k in rehearsed.peers)]
    deviation = rehearsed.stack.deviation(_deviations(columns))
    return round_counts((1 + deviation) * total / len(deviation), total)


def rehearsals(work: Workspace, size: int, plain: Answer) -> Rehearsed:
    """Rehearse clients, attack them, and learn what each answer is worth: a part of the workspace.

    The plain answer stands where the rehearsals do not show that it can be bettered.

    Args:
        work: With auxiliary inputs and labels of every class.
        size: Examples of each client.
        plain: What gives the first answer.
    """
    stream, classes = generator(0, "stacked", size), work.auxiliary.num_classes
    like = Observation(work.sent, Update(1, "rehearsal", {}, size), work.local)
    peers, truth, answers, uneven = None, list[Tensor](), list[list[Tensor]](), list[bool]()
    every = list[Tensor]()

    def drawn(concentrations: Sequence[float]) -> Iterator[tuple[Tensor, Generator]]:
        for concentration in concentrations:
            every.append(_drawn(concentration, classes, size, stream))
            yield every[-1], stream

    # The others are rehearsed only where the first ones' plain answers are not good enough.
    parts = (rehearse_all(like, work, drawn(it)) for it in (CLIENTS[:FIRST], CLIENTS[FIRST:]))
    for place, client in enumerate(chain.from_iterable(parts)):
        counts = every[place]
        try:
            plainly = plain(client, work)
        except ValueError:  # its training blew up
            continue
        peers = _answering(client, work) if peers is None else peers
        answers.append([plainly, *(_peer(k, client, work) for k in peers)])
        truth.append(counts)
        uneven.append(math.isfinite(CLIENTS[place]))
        if len(truth) == FIRST and _rate([row[0] for row in answers], truth) >= GOOD:
            return Rehearsed(None)
    if peers is None or all(uneven) or not any(uneven):
        return Rehearsed(None)
    deviations = [_deviations([n])[:, 0] for n in truth]
    learned, held_out = stack([_deviations(row) for row in answers], deviations, uneven)
    whole = [round_counts((1 + each) * size / classes, size) for each in held_out]
    better = _rate(whole, truth) > _rate([row[0] for row in answers], truth)
    return Rehearsed(learned if better else None, peers)


def _drawn(
    concentration: float, classes: int, size: int, stream: Generator
) -> Int[Tensor, " classes"]:
    """Draw a client's counts."""
    share = torch.ones(classes)
    if math.isfinite(concentration):
        share = torch._sample_dirichlet(share * concentration, generator=stream).clamp(min=1e-12)
    labels = torch.multinomial(share, size, replacement=True, generator=stream)
    return torch.bincount(labels, minlength=classes)


def _answering(client: Observation, work: Workspace) -> tuple[int, ...]:
    """Return which peers have an answer."""
    answering = list[int]()
    for place in range(len(PEERS)):
        with suppress(NotApplicable):
            _peer(place, client, work)
            answering.append(place)
    return tuple(answering)


def _peer(place: int, client: Observation, work: Workspace) -> Int[Tensor, " classes"]:
    """Return a peer's counts of a client's examples, times the epochs."""
    view = View([client], memory=work.memory)
    return PEERS[place](view, work.auxiliary, generator(0, "stacked", place))


def _deviations(columns: Sequence[Int[Tensor, " classes"]]) -> Float[Tensor, "classes answers"]:
    """Return shares times classes less one."""
    counts = torch.stack(list(columns), dim=1).double()
    return counts / counts.mean(dim=0).clamp(min=1e-300) - 1


def _rate(
    answers: Sequence[Int[Tensor, " classes"]], truth: Sequence[Int[Tensor, " classes"]]
) -> float:
    """Return the share of all labels that are named."""
    named = sum(int(torch.minimum(a, n).sum()) for a, n in zip(answers, truth, strict=True))
    return named / sum(int(n.sum()) for n in truth)
