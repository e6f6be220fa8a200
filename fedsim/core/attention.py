"""Attention that can be differentiated: PyTorch's fast kernels have no second derivative."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def plain_attention() -> Iterator[None]:
    """Compute attention by matrix products inside the block.

    For a forward pass that is differentiated twice or forwards: flash attention and the fast path
    of `nn.TransformerEncoder` offer neither.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
