"""What an attack made of a client's earlier rounds, carried from round to round.

A round is read when it is under attack, and once more at most: what was made of it is kept until
the next. After a resume, or after rounds without the attack, each of these is read once.

What is kept takes at most `BYTES` in a run. Beyond that, what was used longest ago is forgotten,
and made again of all rounds when it is asked for.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fedsim.core.types import Observation, Params, View

BYTES = 2**28  # 256 MiB
ENTRY = 512  # bytes of one thing that is kept, beside its tensors
DIGESTS = 512  # of weights and updates that are kept while a round is attacked

State = TypeVar("State")


def carried(
    view: View,
    key: tuple[Hashable, ...],
    add: Callable[[State | None, View], State],
    *,
    same: bool = False,
    until: int | None = None,
) -> State | None:
    """Return what `add` makes of a client's rounds, one after the other; None of no round.

    Args:
        view: One client's observations.
        key: Stands for what `add` does and knows.
        add: What was made of the rounds before (None before the first), and the view of a round by
            itself → what both make together, a new object: tensors, bytes and tuples of them. What
            it raises ends it.
        same: Leave out rounds that cannot be of the same data as the latest.
        until: How many of the rounds, from the first; all of them without.
    """
    kept = view.memory.run.get(Carried, None, Carried)
    names = view.names or _names(view)
    about = (key, _data(view.latest) if same else None)
    end = len(view.observations) if until is None else until
    begun, state = kept.longest(about, names, end)
    done = begun
    try:
        for place in range(begun, end):
            round_view = view.until(place)
            if not same or same_data(round_view.latest, view.latest):
                state = add(state, round_view)
            done = place + 1
    finally:
        if done > begun:
            old = (about, names[begun - 1]) if begun else None
            kept.replace(old, (about, names[done - 1]), state)
    return state


def same_data(earlier: Observation, latest: Observation) -> bool:
    """Return whether an earlier update can be from the same data."""
    return _data(earlier) == _data(latest)


def _data(observation: Observation) -> Hashable:
    """Return what stays the same as long as a client keeps its data, or draws batches of it."""
    gradient = observation.local.upload == "gradient"
    return observation.local, None if gradient else observation.update.num_examples


class Carried:
    """What was made of the rounds so far, by what it is about and the name of the last of them.

    Attributes:
        bytes: How much it takes, about.
        asked: How often it was asked for.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.by_name: OrderedDict[tuple[Hashable, Hashable], Any] = OrderedDict()
        self.bytes = 0

    def longest(self, about: Hashable, names: Sequence[Hashable], end: int) -> tuple[int, Any]:
        """Return of how many of the first `end` rounds something was made, and what."""
        self.asked += 1
        for place in reversed(range(end)):
            if (name := (about, names[place])) in self.by_name:
                self.by_name.move_to_end(name)
                return place + 1, self.by_name[name]
        return 0, None

    def replace(
        self, old: tuple[Hashable, Hashable] | None, new: tuple[Hashable, Hashable], state: object
    ) -> None:
        """Keep what was made of some rounds instead of what was made of fewer."""
        for name in (old, new):
            if name in self.by_name:
                self.bytes -= _bytes(self.by_name.pop(name))
        self.by_name[new] = state
        self.bytes += _bytes(state)
        while self.bytes > BYTES and len(self.by_name) > 1:
            self.bytes -= _bytes(self.by_name.popitem(last=False)[1])


def _bytes(state: object) -> int:
    """Return how many bytes something takes, about."""
    if isinstance(state, tuple):
        return ENTRY + sum(map(_bytes, state))
    if isinstance(state, Tensor):
        return ENTRY + state.nbytes
    return ENTRY + (len(state) if isinstance(state, bytes) else 0)


def _names(view: View) -> list[bytes]:
    """Return for each round a hash of what was observed until then, by reading it."""
    chain, names = hashlib.blake2b(digest_size=16), []
    for place in range(len(view.observations)):
        round_view = view.until(place)
        update, local = round_view.latest.update, round_view.latest.local
        chain.update(of_update(round_view) + _of_sent(round_view))
        facts = (update.round, update.client, update.num_examples, update.num_clients, local)
        chain.update(repr(facts).encode())
        names.append(chain.digest())
    return names


def digest(params: Params) -> bytes:
    """Return a hash of all tensors."""
    hashed = hashlib.blake2b(digest_size=16)
    for name in params:
        hashed.update(params[name].detach().flatten().contiguous().view(torch.uint8).numpy().data)
    return hashed.digest()


def of_update(view: View) -> bytes:
    """Return a hash of the latest update, made once in a round."""
    latest = view.latest
    return view.memory.get(of_update, latest, lambda: digest(latest.update.delta), keep=DIGESTS)


def _of_sent(view: View) -> bytes:
    sent = view.latest.sent  # kept beside its hash, so that no others take its id
    sent_and_hash = view.memory.get(_of_sent, id(sent), lambda: (sent, digest(sent)), keep=DIGESTS)
    return sent_and_hash[1]
