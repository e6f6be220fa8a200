"""EB-GLS over rounds: the evidence of all of a client's updates so far, added up.

fedsim's own: published label attacks look at one update. A client that keeps its data is asked the
same question in every round, and the first one, at the untrained model, is the easiest.

Idea: `eb_gls` turns each update into a quadratic form in the counts, which add like any
log-likelihoods. Uploaded weights come from all of the client's data, the same in every round: the
forms are added. How far each round can be trusted is rehearsed first, on clients made of auxiliary
data: a trained model and many local steps make least squares surer than they may be. An uploaded
gradient comes from a batch of its own: earlier rounds then say what the client's data are, and with
that prior the last update says what its batch was.

*Server must know*: as `eb_gls`, and which updates came from one client (or one cohort).
*Exact when*: one of the rounds is, and the client keeps its data.
*Differs from the paper*: there is none.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.eb_gls import eb_gls, solve
from adversary.carried import carried
from adversary.labels.gls import best_spread
from adversary.labels.head import find_head, own_head
from adversary.labels.posterior import Evidence
from adversary.labels.projections import moved_tensors
from adversary.rehearsal import rehearse_all
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, Observation, Update, View

TURNS = 5  # of adding up and weighing
CLIENTS = 4  # rehearsed to see how far a round can be trusted
SIZE = 100  # of each, in examples
SYSTEMATIC = 0.25  # of their squared error is taken to be in every round; measured on MNIST
UPDATES = 512  # whose evidence is kept by themselves


def eb_gls_rounds(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    rounds: int | None = None,
) -> Int[Tensor, " classes"]:
    """Return label counts of the latest round that add up to the number of labels used.

    Args:
        view: One client's observations, all of which are used.
        auxiliary: With inputs and labels.
        generator: Not used: the answer is deterministic.
        rounds: Look at the client's first rounds only, and at the latest; at all without.

    Raises:
        ValueError: An update is not finite, or `rounds` is negative.
    """
    if rounds is not None and rounds < 0:
        raise NotApplicable(f"eb-gls-rounds: rounds must be at least 0, got {rounds}")
    latest, work = view.latest, workspace(view, auxiliary)

    def add(before: Stack | None, single: View) -> Stack:
        return stacked([evidence(single.latest, work.at(single.latest))], before)

    collect = partial(carried, view, (eb_gls_rounds, auxiliary, rounds), add, same=True)
    earlier = len(view.observations) - 1
    before = collect(until=earlier if rounds is None else min(rounds, earlier))
    if before is None:
        return eb_gls(view, auxiliary, generator)
    if rounds is None or rounds > earlier:
        collect()  # the latest, for the next round
    last = evidence(latest, work)
    if latest.local.upload == "weights":
        posterior = agree(stacked([last], before), last)
    else:
        posterior = with_history(before, last)
    return posterior.whole(posterior.most_likely()) * latest.local.epochs


def evidence(observation: Observation, work: Workspace) -> Evidence:
    """Return what one update says; computed once for all rounds."""
    head = own_head(observation, work)
    if head is None:
        moved = moved_tensors(observation, work)
    else:
        layer = find_head(work)
        parts = {layer.weight: head.observed, layer.bias: head.observed_bias}
        moved = {n: value for n, value in parts.items() if n is not None and value is not None}
    digest = hashlib.blake2b(digest_size=16)
    for name, value in moved.items():
        for part in (observation.sent[name], value):
            digest.update(part.detach().contiguous().numpy().tobytes())
    digest.update(repr((*moved, observation.local, observation.update.num_examples)).encode())
    key = work.auxiliary, digest.digest()
    only = () if head is not None else tuple(moved)
    weigh = lambda: _weighed(observation, work, only)
    return work.memory.run.get(evidence, key, weigh, keep=UPDATES)


def _weighed(observation: Observation, work: Workspace, only: tuple[str, ...]) -> Evidence:
    """Return what one update says, blurred by what rehearsals are wrong by."""
    alone = solve(observation, work)[1].tempered
    error = work.part(_error, only) * alone.total**2
    blur = SYSTEMATIC * error * torch.eye(len(alone.linear), dtype=torch.float64)
    return blurred(alone, blur)


def _error(work: Workspace, only: tuple[str, ...]) -> float:
    """Return the mean squared error of a class's share, of clients made of auxiliary data.

    They upload the named tensors alone, if any are named.
    """
    labels, classes = work.auxiliary.labels, work.auxiliary.num_classes
    assert labels is not None
    stream, size = derived(0, "error"), max(1, min(SIZE, len(labels) // 2))
    like = Observation(work.sent, Update(1, "rehearsal", {}, size), work.local)
    every, errors = list[Tensor](), []

    def drawn() -> Iterator[tuple[Tensor, Generator]]:
        for _ in range(CLIENTS):
            weights = torch.rand(classes, generator=stream).pow(4)  # few classes have most examples
            of = torch.multinomial(weights + 1e-3, size, replacement=True, generator=stream)
            every.append(torch.bincount(of, minlength=classes))
            yield every[-1], stream

    for place, client in enumerate(rehearse_all(like, work, drawn())):
        counts, update = every[place], client.update
        delta = {n: v for n, v in update.delta.items() if n in only or not only}
        solution = solve(replace(like, update=replace(update, delta=delta)), work)[1]
        errors.append(float((solution.posterior.most_likely() - counts).square().mean()))
    return sum(errors) / CLIENTS / size**2


def blurred(e: Evidence, blur: Float[Tensor, "classes classes"]) -> Evidence:
    """Add an error with covariance `blur`, invertible, to the counts that evidence is on.

    The precision becomes (Q⁻¹ + blur)⁻¹, taken without Q⁻¹, which need not exist.
    """
    if float(blur.abs().max()) < 1e-12:
        return e
    gone = torch.linalg.solve(e.quadratic + torch.linalg.inv(blur), e.quadratic).T
    keep = torch.eye(len(blur), dtype=torch.float64) - gone
    return Evidence(keep @ e.quadratic, keep @ e.linear, e.lower, e.total)


class Stack(NamedTuple):
    """Evidence of some updates, and the counts that each alone makes most likely.

    Shapes (n, classes, classes), (n, classes), (n, classes) and (n,).
    """

    quadratic: Tensor
    linear: Tensor
    alone: Tensor
    totals: Tensor


def stacked(updates: Sequence[Evidence], before: Stack | None = None) -> Stack:
    """Return evidence of updates below that of earlier ones."""
    alone = [e.with_prior(best_spread(e)).most_likely() for e in updates]
    rows = Stack(
        torch.stack([e.quadratic for e in updates]),
        torch.stack([e.linear for e in updates]),
        torch.stack(alone),
        torch.tensor([float(e.total) for e in updates], dtype=torch.float64),
    )
    return rows if before is None else Stack(*map(torch.cat, zip(before, rows, strict=True)))


def agree(rounds: Stack, last: Evidence) -> Evidence:
    """Add evidence on the same counts, and the prior that makes it most likely.

    A round that is further from the common answer than its own certainty allows is taken to be
    that much less certain. `last` is of the last one.
    """
    count, classes = rounds.linear.shape
    trust = torch.ones(count, dtype=torch.float64)
    for turn in range(TURNS):
        summed = Evidence(
            torch.einsum("t,tij->ij", trust, rounds.quadratic),
            trust @ rounds.linear,
            last.lower,
            last.total,
        )
        posterior = summed.with_prior(best_spread(summed))
        if count == 1 or turn == TURNS - 1:
            return posterior
        away = rounds.alone - posterior.most_likely()
        misfit = torch.einsum("ti,tij,tj->t", away, rounds.quadratic, away) / (classes - 1)
        trust = 1 / misfit.clamp(min=1)
    raise AssertionError("there is at least one turn")


def with_history(rounds: Stack, last: Evidence) -> Evidence:
    """Let earlier batches of a client say what its data are, as a prior for the last batch."""
    share = _shares(rounds)
    precision, pull = _on_shares(rounds, _multinomial(share))
    mean = torch.linalg.solve(precision, pull).clamp(min=0)
    mean = mean / mean.sum()
    total = last.total
    covariance = total**2 * torch.linalg.inv(precision) + total * _multinomial(mean)
    prior = torch.linalg.inv(covariance)
    return Evidence(last.quadratic + prior, last.linear + prior @ (total * mean), last.lower, total)


def _shares(rounds: Stack) -> Float[Tensor, " classes"]:
    """Return the mean of what each round alone says, a little towards even."""
    alone = rounds.alone / rounds.totals.unsqueeze(1)
    count, classes = alone.shape
    return (alone.mean(dim=0) * count + 1 / classes) / (count + 1)


def _multinomial(share: Float[Tensor, " classes"]) -> Float[Tensor, "classes classes"]:
    """Return the covariance of one draw, made invertible."""
    spread = torch.diag(share) - share.unsqueeze(1) * share
    return spread + 1e-3 / len(share) * torch.eye(len(share), dtype=torch.float64)


def _on_shares(
    rounds: Stack, spread: Float[Tensor, "classes classes"]
) -> tuple[Float[Tensor, "classes classes"], Float[Tensor, " classes"]]:
    """Return precision and pull on the client's shares, from batches drawn with them."""
    classes = len(spread)
    precision = 1e-3 * torch.eye(classes, dtype=torch.float64)  # no round may say anything
    pull = torch.full((classes,), 1e-3 / classes, dtype=torch.float64)
    totals = rounds.totals.view(-1, 1, 1)
    # Blurred by what a batch's counts are off by; see `blurred`.
    wide = torch.linalg.inv(totals * spread)
    gone = torch.linalg.solve(rounds.quadratic + wide, rounds.quadratic).mT
    keep = torch.eye(classes, dtype=torch.float64) - gone
    # One by one: a product of many rounds at once is another in its last bits.
    kept = torch.stack(list(map(torch.mm, keep, rounds.quadratic)))
    pulls = torch.stack(list(map(torch.mv, keep, rounds.linear)))
    return _added(precision, totals.square() * kept), _added(pull, totals[:, 0] * pulls)


def _added(start: Tensor, terms: Float[Tensor, "n *shape"]) -> Tensor:
    """Return a sum over rounds, taken in their order."""
    return torch.cat([start.unsqueeze(0), terms]).cumsum(dim=0)[-1]


ATTACKS = (
    Attack(
        name="eb-gls-rounds",
        family="label",
        infer=eb_gls_rounds,
        needs=("inputs", "labels"),
        reads="update",
        summary="EB-GLS on all of a client's updates so far",
        has_twin=False,
    ),
)
