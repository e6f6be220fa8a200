"""How much of each entry of an answer the gradient does not hold: the kernel of J, entry by entry.

Directions that J maps to 0 are an orthonormal basis K of a space. The share of an entry is the
squared length of its axis inside that space, Σₖ K²: 1 under no window, 1/n for each of n entries of
which the sum alone is hidden. Shares add up to the number of hidden directions.

J is not formed: its kernel is that of a few more random combinations of its rows than the input has
entries, each of which is one product with Jᵀ.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.inversion.hidden import sizes
from adversary.inversion.products import Products

MORE = 32  # combinations of rows than entries: the least singular values stay off 0
ENTRIES = 2**24  # of the vectors that are held at a time
NONE = 1e-9  # of the largest singular value: rounding
CHUNK = 64


def combined(products: Products, generator: Generator) -> Float[Tensor, "rows n"]:
    """Return random combinations of J's rows, each parameter's rows at one size.

    Args:
        products: In float64, of all trained parameters, at a batch of inputs.
        generator: Draws them.
    """
    scale = sizes(products, generator)
    count = products.x.numel() + MORE
    weights = sum(dual.numel() for dual in products.duals)
    together = max(1, min(CHUNK, ENTRIES // weights))
    rows = []
    for begin in range(0, count, together):
        size = min(together, count - begin)
        u = [
            torch.randn(size, *dual.shape, generator=generator, dtype=dual.dtype) / scale[name]
            for name, dual in zip(products.names, products.duals, strict=True)
        ]
        rows.append(products.pull(u).flatten(1))
    return torch.cat(rows)


def kernel_of(rows: Float[Tensor, "rows n"]) -> Float[Tensor, "lost n"]:
    """Return what rows map to 0 to rounding, orthonormal rows.

    Args:
        rows: More than columns.
    """
    _, values, turned = torch.linalg.svd(rows, full_matrices=False)
    return turned[values <= NONE * values[0]]


def shares(kernel: Float[Tensor, "lost n"]) -> Float[Tensor, " n"]:
    """Return the share of each entry that lies in a space given by orthonormal rows."""
    return kernel.square().sum(dim=0).clamp(max=1)
