"""Randomness by name: every stream is derived from the run's seed and the names of its use."""

import hashlib
import os
import random
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import RLock

import numpy as np
import torch

HEADER, WORDS = 3, 624  # of the state of torch's generator, in 64-bit words
_FRESH = torch.Generator().get_state()


class _Turns:
    """Whose turn it is at the global generators, which are the process's.

    A process that is forked meanwhile has a lock of its own: no thread of it would free its copy.
    """

    def __init__(self) -> None:
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = RLock()


_turns = _Turns()


def derive(seed: int, *names: object) -> int:
    """Return a 63-bit seed for the stream called `names`, independent of all other names.

    Args:
        seed: The run's seed.
        *names: What the stream is for, e.g. `"infer", "llg", client, round`.
    """
    text = _text(seed, names).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """Return a torch generator on the stream called `names`.

    Its whole state comes from them. A seed would leave 32 bits, of which two in a hundred thousand
    streams are likely to be the same: torch's Mersenne Twister uses no more of it.
    """
    return _with_state(hashlib.shake_128(_text(seed, names).encode()).digest(4 * WORDS))


def secret_generator() -> torch.Generator:
    """Return a torch generator that nobody can repeat, its whole state from the system's entropy.

    The twister itself is no cipher: 624 draws that are seen exactly tell the others, which noise
    added to unknown numbers does not show.
    """
    return _with_state(secrets.token_bytes(4 * WORDS))


def _with_state(drawn: bytes) -> torch.Generator:
    generator, state = torch.Generator(), _FRESH.clone()
    words = state.numpy().view("uint64")  # seed, counters, then the twister's 624 words
    words[HEADER : HEADER + WORDS] = np.frombuffer(drawn, dtype=np.uint32)
    generator.set_state(state)
    return generator


def _text(seed: int, names: Iterable[object]) -> str:
    # The length of each part goes in, so that ("ab", "c") and ("a", "bc") differ.
    return "".join(f"{len(part)}:{part}" for part in map(str, (seed, *names)))


@contextmanager
def global_stream(seed: int, *names: object) -> Iterator[None]:
    """Seed the global generators of torch (CPU), NumPy and Python inside the block.

    Only for code that offers no generator argument: layer initialisation, dropout, and whatever a
    user's model draws. The generators are as before afterwards. Other threads wait at their blocks.
    """
    with _turns.lock:
        yield from _streamed(seed, names)


def _streamed(seed: int, names: Iterable[object]) -> Iterator[None]:
    # Not torch.manual_seed, which imports the compiler: 4 CPU-seconds in every process.
    ours = torch.default_generator
    before = ours.get_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    ours.set_state(generator(seed, *names).get_state())
    np.random.seed(derive(seed, *names, "numpy") % 2**32)  # noqa: NPY002
    random.seed(derive(seed, *names, "random"))
    try:
        yield
    finally:
        ours.set_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])


def global_state() -> tuple[object, ...]:
    """Return where the global generators of torch (CPU), NumPy and Python stand.

    It is another value after anything was drawn from one of them.
    """
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    ours = torch.default_generator.get_state().numpy()
    return ours.tobytes(), np.asarray(keys).tobytes(), rest, random.getstate()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use that many threads inside the block: sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
