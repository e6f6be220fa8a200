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

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.eb_gls import eb_gls, solve
from adversary.labels.gls import best_spread
from adversary.labels.head import find_head, own_head
from adversary.labels.posterior import Evidence
from adversary.labels.projections import moved_tensors
from adversary.over_rounds import same_data
from adversary.rehearsal import rehearse_all
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, Observation, Update, View

TURNS = 5  # of adding up and weighing
CLIENTS = 4  # rehearsed to see how far a round can be trusted
SIZE = 100  # of each, in examples
SYSTEMATIC = 0.25  # of their squared error is taken to be in every round; measured on MNIST
UPDATES = 4096  # updates whose evidence is kept from round to round


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
    earlier = [view.observations[k] for k in range(len(view.observations) - 1)][:rounds]
    before = [evidence(o, work.at(o)) for o in earlier if same_data(o, latest)]
    if not before:
        return eb_gls(view, auxiliary, generator)
    last = evidence(latest, work)
    if latest.local.upload == "weights":
        posterior = agree([*before, last])
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


def agree(rounds: Sequence[Evidence]) -> Evidence:
    """Add evidence on the same counts, and the prior that makes it most likely.

    A round that is further from the common answer than its own certainty allows is taken to be
    that much less certain.
    """
    freedom = len(rounds[0].linear) - 1
    trust = torch.ones(len(rounds), dtype=torch.float64)
    quadratic = torch.stack([e.quadratic for e in rounds])
    linear = torch.stack([e.linear for e in rounds])
    alone = torch.stack([e.with_prior(best_spread(e)).most_likely() for e in rounds])
    for turn in range(TURNS):
        summed = Evidence(
            torch.einsum("t,tij->ij", trust, quadratic),
            trust @ linear,
            rounds[-1].lower,
            rounds[-1].total,
        )
        posterior = summed.with_prior(best_spread(summed))
        if len(rounds) == 1 or turn == TURNS - 1:
            return posterior
        away = alone - posterior.most_likely()
        misfit = torch.einsum("ti,tij,tj->t", away, quadratic, away) / freedom
        trust = 1 / misfit.clamp(min=1)
    raise AssertionError("there is at least one turn")


def with_history(rounds: Sequence[Evidence], last: Evidence) -> Evidence:
    """Let earlier batches of a client say what its data are, as a prior for the last batch."""
    if not rounds:
        return last.with_prior(best_spread(last))
    share = _shares(rounds)
    spread = _multinomial(share)
    precision, pull = _on_shares(rounds, spread)
    mean = torch.linalg.solve(precision, pull).clamp(min=0)
    mean = mean / mean.sum()
    total = last.total
    covariance = total**2 * torch.linalg.inv(precision) + total * _multinomial(mean)
    prior = torch.linalg.inv(covariance)
    return Evidence(last.quadratic + prior, last.linear + prior @ (total * mean), last.lower, total)


def _shares(rounds: Sequence[Evidence]) -> Float[Tensor, " classes"]:
    """Return the mean of what each round alone says, a little towards even."""
    alone = [e.with_prior(best_spread(e)).most_likely() / e.total for e in rounds]
    classes = len(alone[0])
    return (torch.stack(alone).mean(dim=0) * len(rounds) + 1 / classes) / (len(rounds) + 1)


def _multinomial(share: Float[Tensor, " classes"]) -> Float[Tensor, "classes classes"]:
    """Return the covariance of one draw, made invertible."""
    spread = torch.diag(share) - share.unsqueeze(1) * share
    return spread + 1e-3 / len(share) * torch.eye(len(share), dtype=torch.float64)


def _on_shares(
    rounds: Sequence[Evidence], spread: Float[Tensor, "classes classes"]
) -> tuple[Float[Tensor, "classes classes"], Float[Tensor, " classes"]]:
    """Return precision and pull on the client's shares, from batches drawn with them."""
    classes = len(spread)
    precision = 1e-3 * torch.eye(classes, dtype=torch.float64)  # no round may say anything
    pull = torch.full((classes,), 1e-3 / classes, dtype=torch.float64)
    for e in rounds:
        blurry = blurred(e, e.total * spread)
        precision = precision + e.total**2 * blurry.quadratic
        pull = pull + e.total * blurry.linear
    return precision, pull


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
