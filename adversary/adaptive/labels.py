"""An adversary that knows the clients' defense: every attack, behind a correction.

fedsim's own; adaptive in the sense of Li et al., "Analyzing Inference Privacy Risks Through
Gradients in Machine Learning", CCS 2024: the best, on rehearsed data, of a set of attacks that
contains the one that knows nothing of the defense.

Idea: rehearse clients on auxiliary data, without and with the defense; learn from the pairs how to
undo what it does to the head's gradient; let each attack choose, on other rehearsed clients, the
correction that helps it most, which may be none. Nothing here knows any particular defense.

*Server must know*: what the attack itself must know, auxiliary data, and the defense with its
parameters, not its coins.
*Differs from the paper*: the paper attacks other secrets; its code is not at hand. Where no linear
head was uploaded, the update is left as it is. Every client is
rehearsed in its first round, without what a defense would remember from earlier ones (the residuals
of error feedback), and an uploaded gradient with all its examples (no Poisson sampling).
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.adaptive import members as adaptive_members
from adversary.adaptive.corrections import Correct, corrected, learn
from adversary.attack import Attack, Infer
from adversary.labels.head import find_head, has_head
from adversary.rehearsal import defended, rehearse_all, rehearsed_size
from adversary.secrets import SECRETS
from adversary.workspace import Workspace, workspace
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, Observation, Update, View

REHEARSED = {"gradient": 48, "weights": 16}  # clients; corrections are learned from one half, and
# each attack chooses on the other


def adaptive(attack: Attack) -> Attack:
    """Return the attack by an adversary that knows the defense, beside the one that does not."""
    return replace(
        attack,
        infer=attack.infer
        if attack.rehearses
        else partial(TWINS[attack.family], inner=attack.infer),
        infer_all=None,
        needs=(*attack.needs, "inputs", "labels", "defense"),
        adaptive=True,
    )


def infer(
    view: View, auxiliary: Auxiliary, generator: Generator, *, inner: Infer
) -> Int[Tensor, " classes"]:
    """Return the inner attack's answer to the corrected update.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels and the defense.
        generator: Of the inner attack.
        inner: The attack.

    Raises:
        ValueError: As the inner attack.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    if not has_head(latest, work):
        return inner(view, auxiliary, generator)
    size = rehearsed_size(latest)
    correct = work.part(corrections, size)[work.part(chosen, size, inner, keep=256)]
    return inner(corrected(latest, _names(work), correct, view.memory), auxiliary, generator)


@dataclass(frozen=True)
class Pair:
    """A rehearsed client: its counts, and its update without and with the defense."""

    counts: Int[Tensor, " classes"]
    plain: Observation
    defended: Observation


def rehearsed(work: Workspace, size: int) -> tuple[Pair, ...]:
    """Return rehearsed clients; few classes have most of each one's examples.

    A defense on the update is applied to what was trained without it; one inside training takes a
    training of its own.
    """
    auxiliary, local = work.auxiliary, work.local
    stream, classes = derived(0, "shadow"), auxiliary.num_classes
    like, every = Observation(work.sent, Update(1, "shadow", {}, size), local), []
    for _ in range(REHEARSED[local.upload]):
        share = torch.rand(classes, generator=stream).pow(4) + 1e-3
        drawn = torch.multinomial(share, size, replacement=True, generator=stream)
        every.append(torch.bincount(drawn, minlength=classes))

    def trained(*, hooked: bool) -> list[Observation]:  # the same examples in both ways
        clients = ((n, derived(0, "shadow", place)) for place, n in enumerate(every))
        return list(rehearse_all(like, work, clients, hooked=hooked))

    plain = trained(hooked=False)
    inside = auxiliary.defense is not None and auxiliary.defense.gradient is not None
    pairs = zip(every, plain, trained(hooked=True) if inside else plain, strict=True)
    return tuple(
        Pair(counts, without, defended(within, auxiliary, derived(0, "shadow", place, "defense")))
        for place, (counts, without, within) in enumerate(pairs)
    )


def corrections(work: Workspace, size: int) -> dict[str, Correct]:
    """Return ways to undo what the defense does to the head, learned from half of the pairs."""
    pairs, names = work.part(rehearsed, size, keep=16)[::2], _names(work)
    plain = [[pair.plain.update.delta[name] for name in names] for pair in pairs]
    uploaded = [[pair.defended.update.delta[name] for name in names] for pair in pairs]
    return learn(plain, uploaded)


def chosen(work: Workspace, size: int, inner: Infer) -> str:
    """Return the correction with which an attack names most labels of rehearsed clients."""
    pairs = work.part(rehearsed, size, keep=16)[1::2]
    overlaps = {}
    for name, correct in work.part(corrections, size).items():
        overlaps[name] = 0.0
        for place, pair in enumerate(pairs):
            view = corrected(pair.defended, _names(work), correct, work.memory)
            try:
                guess = inner(view, work.auxiliary, derived(0, "choose", place)).double()
            except ValueError:  # this correction does not go with this attack
                continue
            share = guess / guess.sum().clamp(min=1)
            overlaps[name] += float(torch.minimum(share, pair.counts / size).sum())
    return max(overlaps, key=lambda name: overlaps[name])  # of equals the first: none


def _names(work: Workspace) -> list[str]:
    head = find_head(work)
    return [name for name in (head.weight, head.bias) if name is not None]


def _knowing(view: View, auxiliary: Auxiliary, generator: Generator, *, inner: Infer) -> Tensor:
    """Return the answer of an attack that makes use of the defense by itself."""
    return inner(view, auxiliary, generator)


TWINS = {
    "label": infer,
    "membership": adaptive_members.infer,
    "source": adaptive_members.infer,
    **dict.fromkeys(
        ("attribute", "linkage", "range", "reconstruction", "text", "tokens", "usage", *SECRETS),
        _knowing,
    ),
}
