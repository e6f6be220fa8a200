"""Randomness by name: every stream is derived from the run's seed and the names of its use."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
