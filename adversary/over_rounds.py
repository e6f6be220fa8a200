"""What all of a client's rounds so far say together.

A client that keeps its data is asked the same question in every round. Evidence adds; an exact copy
of an earlier upload is none.

Sums are carried from round to round (`adversary.carried`), with a hash of each update in them.
"""

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from adversary.attack import Attack, Infer
from adversary.carried import carried, of_update
from adversary.games.predictors import Predictor, recalibrated
from fedsim.core.types import Auxiliary, Observation, View

HASH = 16  # bytes
SCORES = ("membership", "range", "source")  # families whose answer is a score for each question

Terms = tuple[Tensor, ...]
"""What one round adds to the sums."""


def over_rounds(attack: Attack) -> Attack:
    """Return an attack on one round as one on all rounds so far, where scores are to be averaged.

    Attacks of other families add up their rounds by themselves.
    """
    if not attack.over_rounds or attack.family not in SCORES:
        return attack
    return replace(attack, infer=partial(averaged, inner=attack.infer), infer_all=None)


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

    def answer(round_view: View) -> Terms:
        return inner(round_view, auxiliary, generator), torch.tensor(1.0)

    (total, rounds), _ = summed(view, answer, (auxiliary, inner))
    return total / rounds


def summed(
    view: View,
    answer: Callable[[View], Terms],
    key: tuple[Hashable, ...],
    *,
    same: bool = False,
    plus: Callable[[Tensor, Tensor], Tensor] = torch.add,
) -> tuple[Terms, int]:
    """Return the sums, over rounds, of the tensors that `answer` gives for each, and how many.

    Exact copies of earlier updates do not count. An earlier round for which `answer` raises a
    ValueError counts, and adds nothing.

    Args:
        view: One client's observations.
        answer: A view → tensors of always the same shapes.
        key: Stands for what `answer` does and knows.
        same: Leave out uploads that cannot be of the same data as the latest.
        plus: Adds a round's tensor to the sum of those before it.

    Raises:
        ValueError: As `answer`, of the latest round.
    """

    def add(before: tuple[Terms, bytes] | None, round_view: View) -> tuple[Terms, bytes]:
        total, hashes = before or ((), b"")
        update = of_update(round_view)
        if _is_in(update, hashes) and total:
            return total, hashes
        try:
            terms = answer(round_view)
        except ValueError:
            if round_view.latest is view.latest:
                raise
            return total, hashes + update
        if total:
            terms = tuple(map(plus, total, terms))
        return terms, hashes + update

    state = carried(view, (summed, *key), add, same=same)
    assert state is not None  # the latest round is of the data of the latest
    total, hashes = state
    return total, len(hashes) // HASH


def _is_in(update: bytes, hashes: bytes) -> bool:
    """Return whether a hash is one of those in a row."""
    place = hashes.find(update)
    while place % HASH > 0 and place > 0:
        place = hashes.find(update, place + 1)
    return place >= 0


def added(
    view: View, auxiliary: Auxiliary, name: str, answer: Callable[[Observation], Terms]
) -> Float[Tensor, "*n classes"]:
    """Return log p(uploads | secret) of all rounds that can be of the same data as the latest.

    Shadow clients are asked in every round too; what they show of the sum's errors sets its slope.

    Args:
        view: One client's observations, all of which are used.
        auxiliary: What `answer` knows.
        name: Of what it does.
        answer: An observation → log p(upload | secret), (*n, classes), and what `held_out` returns.
    """
    terms, rounds = summed(
        view, lambda round_view: answer(round_view.latest), (auxiliary, name), same=True
    )
    odds, shadows, secrets = terms
    if rounds == 1:
        return odds
    flat = odds.view(-1, odds.shape[-1])
    return recalibrated(flat, shadows, secrets.argmax(dim=1)).view_as(odds)


def held_out(predictor: Predictor) -> tuple[Tensor, Tensor]:
    """Return log p(class) of a predictor's validation trials, and their classes as one-hot rows."""
    classes = predictor.held_out.shape[1]
    return predictor.held_out, functional.one_hot(predictor.secrets, classes)
