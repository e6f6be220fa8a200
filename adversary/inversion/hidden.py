"""Which directions of an input the gradient does not hold: decided by J itself, not by JᵀJ.

The spectrum of JᵀJ tells singular values over 6 decades. Directions below are looked at again: J
is applied to them, every parameter's rows are scaled to one size, and the singular values of the
result are taken without squaring. What is then 0 to rounding is hidden from the derivative. It says
nothing of steps and of what a model takes out of it (`detach`): so it is compared with differences
of gradients, entries of the input without any derivative are drawn again, and other inputs of the
same gradient must exist (`pairs`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from adversary.inversion.pairs import paired
from adversary.inversion.products import Products
from fedsim.core.examples import flat_rows

ENTRIES = 2**26  # of J's columns that are held at a time,
PASSES = 8  # and how often they are computed, at most
ZERO = 1e-10  # of a parameter's size in J: what is below is rounding
LEAST = 1e-4  # of J's size: a parameter's rows are not scaled up further
STEP, DIFFERS = 1e-6, 1e-4  # of differences, and their relative error that is none
DRAWS = 3  # directions: a kink that one crosses the others do not
WIDE = 3.0  # standard deviation of entries that are drawn beyond pixels
SMALL = 1e-8  # of the largest: rounding
CHUNK = 64


def sizes(products: Products, generator: Generator, count: int = 4) -> dict[str, float]:
    """Return about the size of each parameter's rows of J, from products with random directions.

    None is smaller than a share of the largest, below which rounding is not told from a signal.
    """
    x = products.x
    v = torch.randn(count, *x.shape, generator=generator, dtype=x.dtype)
    moved = products.push(v)
    norms = {n: float(m.double().square().sum() / count) ** 0.5
             for n, m in zip(products.names, moved, strict=True)}  # fmt: skip
    least = LEAST * math.sqrt(sum(value**2 for value in norms.values()))
    return {name: max(value, least) or 1.0 for name, value in norms.items()}


def kernel(
    products: Products, size: Mapping[str, float], directions: Float[Tensor, "h n"]
) -> Float[Tensor, "lost n"] | None:
    """Return what J maps to 0 to rounding, orthonormal rows; None where its columns are too many.

    Args:
        products: In float64, of all parameters.
        size: Of each parameter's rows of J.
        directions: Orthonormal rows, among whose combinations it is looked for.
    """
    count = len(directions)
    if count * sum(dual.numel() for dual in products.duals) > PASSES * ENTRIES:
        return None
    triangle = torch.zeros(0, count, dtype=torch.float64)
    for rows in _scaled(products, size, directions):
        triangle = torch.linalg.qr(torch.cat([triangle, rows]), mode="r")[1]
    _, values, turned = torch.linalg.svd(triangle)
    values = torch.cat([values, values.new_zeros(count - len(values))])
    return turned[values <= ZERO * math.sqrt(len(size))] @ directions


def _scaled(products: Products, size: Mapping[str, float], directions: Tensor) -> Iterator[Tensor]:
    """Return J's columns along directions, its rows scaled, some rows at a time."""
    count, x = len(directions), products.x
    entries = sum(dual.numel() for dual in products.duals)
    scale = torch.cat(
        [x.new_full((d.numel(),), size[n])
         for n, d in zip(products.names, products.duals, strict=True)]
    )  # fmt: skip
    width = max(ENTRIES // count, 1)
    together = max(1, min(CHUNK, ENTRIES // entries))
    for begin in range(0, entries, width):
        here = slice(begin, begin + width)
        columns = []
        for chunk in directions.split(together):
            moved = products.push(chunk.view(-1, *x.shape))
            columns.append(torch.cat([flat_rows(it) for it in moved], dim=1)[:, here].contiguous())
        yield (torch.cat(columns) / scale[here]).T


def underived(
    products: Products, size: Mapping[str, float], hidden: Tensor, generator: Generator
) -> str | None:
    """Return why J does not say which directions are hidden; None without a reason.

    Args:
        products: In float64, of all trained parameters, at the input.
        size: Of each parameter's rows of J.
        hidden: Directions that J maps to 0, orthonormal rows.
        generator: Draws directions and new entries of the input.
    """
    if not faithful(products, generator):
        return (
            "the gradient differs from its derivative: the model detaches a part, has steps, or "
            "draws at random"
        )
    if not len(hidden):
        return None
    still = without_slope(products, generator)
    if depends_elsewhere(products, still, generator):
        count = int(still.sum())
        return f"{count} entries of the input, which only show in steps or at other inputs"
    if not all(paired(products, size, hidden, generator) for _ in range(DRAWS)):
        return "inputs further away; the search for another input of the same gradient failed"
    return None


def faithful(products: Products, generator: Generator) -> bool:
    """Return whether J says how the gradient changes; of some directions one must show it."""
    return any(_faithful(products, generator) for _ in range(DRAWS))


def _faithful(products: Products, generator: Generator) -> bool:
    """Return whether differences of each parameter's gradient are what J says, in a direction."""
    x = products.x.detach()
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    here, ahead, behind = (
        [it.detach() for it in products.gradient_at(x + s * STEP * v)] for s in (0, 1, -1)
    )
    moved = [it[0] for it in products.push(v[None])]
    whole = float(_flat(moved).norm())
    return all(
        float(((after - before) / (2 * STEP) - part).norm())
        <= DIFFERS * float(part.norm()) + SMALL * (whole + float(value.norm()))
        for value, after, before, part in zip(here, ahead, behind, moved, strict=True)
    )


def without_slope(products: Products, generator: Generator) -> Bool[Tensor, "n *shape"]:
    """Return the entries of the inputs whose columns of J are 0, to rounding.

    Args:
        products: Of all trained parameters, at a batch of inputs.
        generator: Draws a combination of J's rows.
    """
    u = [torch.randn(1, *dual.shape, generator=generator, dtype=dual.dtype)
         for dual in products.duals]  # fmt: skip
    slope = products.pull(u)[0].abs().flatten(1)
    return (slope <= SMALL * slope.amax(dim=1, keepdim=True)).view(products.x.shape)


def depends_elsewhere(products: Products, entries: Tensor, generator: Generator) -> bool:
    """Return whether other values of entries without a derivative change the gradient."""
    x = products.x.detach()
    drawn = torch.rand(x.shape, generator=generator, dtype=x.dtype)
    wide = WIDE * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    here = _flat(products.gradient_at(x))
    for values in (drawn, drawn.round(), wide):  # whole numbers, for what are ids
        try:
            other = _flat(products.gradient_at(torch.where(entries, values, x)))
        except Exception:  # no input of this model has such values
            continue
        if float((here - other).abs().max()) > SMALL * float(here.abs().max()):
            return True
    return False


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().flatten() for part in parts])
