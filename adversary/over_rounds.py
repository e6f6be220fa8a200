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
from fedsim.core.types import Auxiliary, Observation, Params, View

SUMS = 8192  # kept from round to round, one for each attack and client
DIGESTS = 512  # of weights and updates that are kept while a round is attacked
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

    total, rounds = summed(distinct(view), answer, (auxiliary, inner))
    return total / rounds


def distinct(view: View, *, same: bool = False) -> list[View]:
    """Return the views of the rounds so far, each by itself, oldest first, without exact copies.

    Args:
        view: One client's observations.
        same: Leave out uploads that cannot be of the same data as the latest.
    """
    rounds: dict[bytes, View] = {}
    for place in range(len(view.observations)):
        round_view = view.until(place)
        if not same or same_data(round_view.latest, view.latest):
            rounds.setdefault(_of_update(round_view), round_view)
    return list(rounds.values())


def same_data(earlier: Observation, latest: Observation) -> bool:
    """Return whether an earlier update can be from the same data."""
    same_count = earlier.update.num_examples == latest.update.num_examples
    return earlier.local == latest.local and (same_count or latest.local.upload == "gradient")


def summed(
    rounds: Sequence[View], answer: Callable[[View], Terms], key: tuple[Hashable, ...]
) -> Terms:
    """Return the sums, over rounds, of the tensors that `answer` gives for each.

    An earlier round for which it raises a ValueError adds nothing.

    Args:
        rounds: As `distinct` returns them; the run's memory keeps the sums.
        answer: A view → tensors of always the same shapes.
        key: Stands for what `answer` does and knows.
    """
    sums = rounds[-1].memory.run.get(Sums, None, Sums)
    names = [(*key, name) for name in _names(rounds, len(key))]
    start, total = sums.longest(names)
    for round_view in rounds[start:]:
        try:
            terms = answer(round_view)
        except ValueError:
            if round_view is rounds[-1]:
                raise
            continue
        total = tuple(a + b for a, b in zip(total, terms, strict=True)) if total else terms
    sums.replace(names[start - 1] if start else None, names[-1], total)
    return total


class Sums:
    """Sums over rounds so far, by name; the last `SUMS` that were used."""

    def __init__(self) -> None:
        self.by_name: OrderedDict[tuple[Hashable, ...], Terms] = OrderedDict()

    def longest(self, names: Sequence[tuple[Hashable, ...]]) -> tuple[int, Terms]:
        """Return over how many of some rounds a sum is there, and the sum; names are by round."""
        for place in reversed(range(len(names))):
            if names[place] in self.by_name:
                return place + 1, self.by_name[names[place]]
        return 0, ()

    def replace(
        self, old: tuple[Hashable, ...] | None, new: tuple[Hashable, ...], total: Terms
    ) -> None:
        """Keep a sum instead of one over fewer rounds."""
        if old is not None:
            del self.by_name[old]
        self.by_name[new] = total
        if len(self.by_name) > SUMS:
            self.by_name.popitem(last=False)


def _names(rounds: Sequence[View], salt: int) -> list[bytes]:
    """Return for each round a hash of what was observed until then."""
    chain, names = hashlib.blake2b(repr(salt).encode(), digest_size=16), []
    for round_view in rounds:
        update, local = round_view.latest.update, round_view.latest.local
        chain.update(_of_update(round_view) + _of_sent(round_view))
        chain.update(repr((update.round, update.num_examples, local)).encode())
        names.append(chain.digest())
    return names


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
    rounds = distinct(view, same=True)
    odds, shadows, secrets = summed(
        rounds, lambda round_view: answer(round_view.latest), (auxiliary, name)
    )
    if len(rounds) == 1:
        return odds
    flat = odds.view(-1, odds.shape[-1])
    return recalibrated(flat, shadows, secrets.argmax(dim=1)).view_as(odds)


def held_out(predictor: Predictor) -> tuple[Tensor, Tensor]:
    """Return log p(class) of a predictor's validation trials, and their classes as one-hot rows."""
    classes = predictor.held_out.shape[1]
    return predictor.held_out, functional.one_hot(predictor.secrets, classes)


def digest(params: Params) -> bytes:
    """Return a hash of all tensors."""
    hashed = hashlib.blake2b(digest_size=16)
    for name in params:
        hashed.update(params[name].detach().flatten().contiguous().view(torch.uint8).numpy().data)
    return hashed.digest()


def _of_update(view: View) -> bytes:
    latest = view.latest
    return view.memory.get(_of_update, latest, lambda: digest(latest.update.delta), keep=DIGESTS)


def _of_sent(view: View) -> bytes:
    sent = view.latest.sent  # kept beside its hash, so that no others take its id
    sent_and_hash = view.memory.get(_of_sent, id(sent), lambda: (sent, digest(sent)), keep=DIGESTS)
    return sent_and_hash[1]
