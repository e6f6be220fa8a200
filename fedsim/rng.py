"""Randomness by name: every stream is derived from the run's seed and the names of its use."""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

HEADER, WORDS = 3, 624  # of the state of torch's generator, in 64-bit words


def derive(seed: int, *names: object) -> int:
    """Return a 63-bit seed for the stream called `names`, independent of all other names.

    Args:
        seed: The run's seed.
        *names: What the stream is for, e.g. `"infer", "llg", client, round`.
    """
    # The length of each part goes in, so that ("ab", "c") and ("a", "bc") differ.
    text = "".join(f"{len(part)}:{part}" for part in map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """Return a torch generator on the stream called `names`."""
    return torch.Generator().manual_seed(derive(seed, *names))


def secret_generator() -> torch.Generator:
    """Return a torch generator that nobody can repeat, its whole state from the system's entropy.

    A seed would leave 32 bits: torch's Mersenne Twister uses no more of it, and trying them all
    takes hours. The twister itself is no cipher: 624 draws that are seen exactly tell the others,
    which noise added to unknown numbers does not show.
    """
    generator = torch.Generator()
    state = generator.get_state()
    words = state.numpy().view("uint64")  # seed, counters, then the twister's 624 words
    drawn = np.frombuffer(secrets.token_bytes(4 * WORDS), dtype=np.uint32)
    words[HEADER : HEADER + WORDS] = drawn
    generator.set_state(state)
    return generator


@contextmanager
def global_stream(seed: int, *names: object) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block and put it back afterwards.

    Only for code that offers no generator argument: layer initialisation and dropout.
    """
    # Not torch.manual_seed, which imports the compiler: 4 CPU-seconds in every process.
    ours = torch.default_generator
    before = ours.get_state()
    ours.manual_seed(derive(seed, *names))
    try:
        yield
    finally:
        ours.set_state(before)
