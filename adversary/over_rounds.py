"""What all of a client's rounds so far say together.

A client that keeps its data is asked the same question in every round. Evidence adds; an exact copy
of an earlier upload is none.

Every upload is read again in every round, to tell copies: time grows with the square of the number
of rounds, at the speed of a hash. Nothing else is computed twice, unless a run is resumed.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from adversary.attack import Attack, Infer
from adversary.games.predictors import Predictor, recalibrated
from adversary.memo import Identity, once
from fedsim.core.types import Auxiliary, Observation, Params, View

REMEMBERED = 8192  # sums kept from round to round, one for each attack and client
SCORES = ("membership", "source")  # families whose answer is a score for each candidate

Told = tuple[Tensor, ...]
_remembered: OrderedDict[tuple[Hashable, ...], Told] = OrderedDict()


def over_rounds(attack: Attack) -> Attack:
    """Return an attack on one round as one on all rounds so far, where scores are to be averaged.

    Attacks of other families add up their rounds by themselves.
    """
    if not attack.over_rounds or attack.family not in SCORES:
        return attack
    return replace(attack, infer=partial(averaged, inner=attack.infer))


def averaged(view: View, auxiliary: Auxiliary, generator: Generator, *, inner: Infer) -> Tensor:
    """Return the mean of an attack's scores over rounds; a round that it cannot answer is left out.

    Args:
        view: One client's observations, all of which are used.
        auxiliary: As for `inner`.
        generator: As for `inner`.
        inner: The attack on one round.

    Raises:
        ValueError: As `inner`, of the latest round.
    """

    def answer(seen: View) -> Told:
        return inner(seen, auxiliary, generator), torch.tensor(1.0)

    total, rounds = summed(distinct(view), answer, (Identity(auxiliary), Identity(inner)))
    return total / rounds


def distinct(view: View, *, same: bool = False) -> list[View]:
    """Return the views of the rounds so far, each by itself, oldest first, without exact copies.

    Args:
        view: One client's observations.
        same: Leave out uploads that cannot be of the same data as the latest.
    """
    found: dict[bytes, View] = {}
    for place in range(len(view.observations)):
        seen = view.until(place)
        if not same or same_data(seen.latest, view.latest):
            found.setdefault(digest(seen.latest.update.delta), seen)
    return list(found.values())


def same_data(earlier: Observation, latest: Observation) -> bool:
    """Return whether an earlier update can be from the same data."""
    kept = earlier.update.num_examples == latest.update.num_examples
    return earlier.local == latest.local and (kept or latest.local.upload == "gradient")


def summed(
    rounds: Sequence[View], answer: Callable[[View], Told], key: tuple[Hashable, ...]
) -> Told:
    """Return the sums, over rounds, of the tensors that `answer` gives for each.

    An earlier round for which it raises a ValueError adds nothing.

    Args:
        rounds: As `distinct` returns them.
        answer: A view → tensors of always the same shapes.
        key: Stands for what `answer` does and knows.
    """
    chain, names = hashlib.blake2b(repr(len(key)).encode(), digest_size=16), []
    for seen in rounds:
        told = seen.latest
        chain.update(digest(told.update.delta) + digest(told.sent))
        chain.update(repr((told.update.round, told.update.num_examples, told.local)).encode())
        names.append((*key, chain.digest()))
    start = max((k + 1 for k, name in enumerate(names) if name in _remembered), default=0)
    total = _remembered[names[start - 1]] if start else ()
    for seen in rounds[start:]:
        try:
            more = answer(seen)
        except ValueError:
            if seen is rounds[-1]:
                raise
            continue
        total = tuple(a + b for a, b in zip(total, more, strict=True)) if total else more
    if start:
        del _remembered[names[start - 1]]
    _remembered[names[-1]] = total
    if len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)
    return total


def added(
    view: View, auxiliary: Auxiliary, name: str, answer: Callable[[View], Told]
) -> Float[Tensor, "*n classes"]:
    """Return log p(uploads | secret) of all rounds that can be of the same data as the latest.

    Shadow clients are asked in every round too; what they show of the sum's errors sets its slope.

    Args:
        view: One client's observations, all of which are used.
        auxiliary: What `answer` knows.
        name: Of what it does.
        answer: A view → log p(upload | secret), (*n, classes), and what `held_out` returns.
    """
    rounds = distinct(view, same=True)
    odds, shadows, secrets = summed(rounds, answer, (Identity(auxiliary), name))
    if len(rounds) == 1:
        return odds
    flat = odds.view(-1, odds.shape[-1])
    return recalibrated(flat, shadows, secrets.argmax(dim=1)).view_as(odds)


def held_out(predictor: Predictor) -> tuple[Tensor, Tensor]:
    """Return log p(class) of a predictor's validation trials, and their classes as one-hot rows."""
    classes = predictor.held_out.shape[1]
    return predictor.held_out, functional.one_hot(predictor.secrets, classes)


@once(size=512)
def digest(params: Params) -> bytes:
    """Return a hash of all tensors."""
    found = hashlib.blake2b(digest_size=16)
    for name in params:
        found.update(params[name].detach().flatten().contiguous().view(torch.uint8).numpy().data)
    return found.digest()
