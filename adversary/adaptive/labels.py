"""An adversary that knows the clients' defense: every attack, behind a correction.

fedsim's own; adaptive in the sense of Li et al., "Analyzing Inference Privacy Risks Through
Gradients in Machine Learning", CCS 2024: the best, on rehearsed data, of a set of attacks that
contains the one that knows nothing of the defense.

Idea: rehearse clients on auxiliary data, without and with the defense; learn from the pairs how to
undo what it does to the head's gradient; let each attack choose, on other rehearsed clients, the
correction that helps it most, which may be none. Nothing here knows any particular defense.

*Server must know*: what the attack itself must know, auxiliary data, and the defense with its
parameters, not its coins.
*Differs from the paper*: the paper attacks other secrets; its code is not at hand. Every client is
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
from adversary.labels.head import find_head
from adversary.memo import once
from adversary.rehearsal import defended, rehearse, rehearsed_size
from adversary.secrets import SECRETS
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Params, Update, View

REHEARSED = {"gradient": 48, "weights": 16}  # clients; corrections are learned from one half, and
# each attack chooses on the other


def adaptive(attack: Attack) -> Attack:
    """Return the attack by an adversary that knows the defense, beside the one that does not."""
    return replace(
        attack,
        infer=attack.infer
        if attack.rehearses
        else partial(TWINS[attack.family], inner=attack.infer),
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
    latest = view.latest
    size = rehearsed_size(latest)
    name = chosen(auxiliary, latest.sent, inner, local=latest.local, size=size)
    correct = corrections(auxiliary, latest.sent, local=latest.local, size=size)[name]
    return inner(corrected(latest, _names(auxiliary), correct), auxiliary, generator)


@dataclass(frozen=True)
class Pair:
    """A rehearsed client: its counts, and its update without and with the defense."""

    counts: Int[Tensor, " classes"]
    plain: Observation
    defended: Observation


@once(size=16)
def rehearsed(
    auxiliary: Auxiliary, sent: Params, *, local: LocalTraining, size: int
) -> tuple[Pair, ...]:
    """Return rehearsed clients; few classes have most of each one's examples.

    A defense on the update is applied to what was trained without it; one inside training takes a
    training of its own.
    """
    stream, classes = derived(0, "shadow"), auxiliary.num_classes
    like, pairs = Observation(sent, Update(1, "shadow", {}, size), local), []
    for place in range(REHEARSED[local.upload]):
        share = torch.rand(classes, generator=stream).pow(4) + 1e-3
        drawn = torch.multinomial(share, size, replacement=True, generator=stream)
        counts = torch.bincount(drawn, minlength=classes)
        name = ("shadow", place)  # the same examples with the hook and without
        plain = trained = rehearse(like, auxiliary, counts, derived(0, *name))
        if auxiliary.defense.gradient is not None:
            trained = rehearse(like, auxiliary, counts, derived(0, *name), hooked=True)
        uploaded = defended(trained, auxiliary, derived(0, *name, "defense"))
        pairs.append(Pair(counts, plain, uploaded))
    return tuple(pairs)


@once(size=16)
def corrections(
    auxiliary: Auxiliary, sent: Params, *, local: LocalTraining, size: int
) -> dict[str, Correct]:
    """Return ways to undo what the defense does to the head, learned from half of the pairs."""
    pairs = rehearsed(auxiliary, sent, local=local, size=size)[::2]
    plain = [_head(pair.plain, auxiliary) for pair in pairs]
    return learn(plain, [_head(pair.defended, auxiliary) for pair in pairs])


@once(size=256)
def chosen(
    auxiliary: Auxiliary, sent: Params, inner: Infer, *, local: LocalTraining, size: int
) -> str:
    """Return the correction with which an attack names most labels of rehearsed clients."""
    pairs = rehearsed(auxiliary, sent, local=local, size=size)[1::2]
    found = {}
    for name, correct in corrections(auxiliary, sent, local=local, size=size).items():
        found[name] = 0.0
        for place, pair in enumerate(pairs):
            view = corrected(pair.defended, _names(auxiliary), correct)
            try:
                guess = inner(view, auxiliary, derived(0, "choose", place)).double()
            except ValueError:  # this correction does not go with this attack
                continue
            share = guess / guess.sum().clamp(min=1)
            found[name] += float(torch.minimum(share, pair.counts / size).sum())
    return max(found, key=lambda name: found[name])  # of equals the first: none


def _names(auxiliary: Auxiliary) -> list[str]:
    head = find_head(auxiliary)
    return [name for name in (head.weight, head.bias) if name is not None]


def _head(observation: Observation, auxiliary: Auxiliary) -> list[Tensor]:
    return [observation.update.delta[name] for name in _names(auxiliary)]


def _knowing(view: View, auxiliary: Auxiliary, generator: Generator, *, inner: Infer) -> Tensor:
    """Return the answer of an attack that makes use of the defense by itself."""
    return inner(view, auxiliary, generator)


TWINS = {
    "label": infer,
    "membership": adaptive_members.infer,
    "source": adaptive_members.infer,
    **dict.fromkeys(("attribute", "reconstruction", *SECRETS), _knowing),
}
