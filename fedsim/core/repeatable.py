"""A GPU that gives the same bits each time, in full float32.

On CUDA torch takes TensorFloat-32 in convolutions (10 bits of mantissa), the fastest of algorithms
that differ by rounding, and a generator of its own for what draws inside a kernel (dropout of
recurrent layers). Inside the block none of these is so. A kernel without a deterministic form runs
as it is: its last bits may differ from run to run.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

# What cuBLAS needs before its first call; torch of 2026 sees to it itself.
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


def prepare_repeatable(name: str) -> None:
    """Set what has to stand in the environment before a device is first used."""
    if name == "cuda":
        os.environ.setdefault(*WORKSPACE)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Let a CUDA device give the same bits each time inside the block; settings are put back."""
    if device.type != "cuda":
        yield
        return
    mode, filled = torch.get_deterministic_debug_mode(), cast("Any", torch.utils.deterministic)
    before = filled.fill_uninitialized_memory
    drawn = torch.cuda.get_rng_state(device)
    matmul = torch.backends.cuda.matmul
    tf32 = matmul.allow_tf32
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    try:
        with exact, warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have a deterministic implementation")
            torch.set_deterministic_debug_mode("warn")
            filled.fill_uninitialized_memory = False  # which would only cost time
            matmul.allow_tf32 = False
            torch.cuda.manual_seed(_seed_of_cpu())
            yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        filled.fill_uninitialized_memory = before
        matmul.allow_tf32 = tf32
        torch.cuda.set_rng_state(drawn, device)


def _seed_of_cpu() -> int:
    """Return a seed that the CPU's generator decides, without drawing from it."""
    state = torch.default_generator.get_state().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(state, digest_size=8).digest()) >> 1
