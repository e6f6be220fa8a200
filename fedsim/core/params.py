"""Arithmetic on named tensors: pure functions, in the order of the first argument."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Generator, Tensor

from fedsim.core.types import Params


def subtract(left: Params, right: Params) -> dict[str, Tensor]:
    """Return `left − right`, name by name, in `left`'s dtypes.

    Weights that a server averaged in float64 are loaded by the client in its model's own dtype,
    so the difference to them is taken there too.
    """
    return {name: value - right[name].to(value.dtype) for name, value in left.items()}


def add(left: Params, right: Params) -> dict[str, Tensor]:
    """Return `left + right`, name by name, in `left`'s dtypes."""
    return {name: (value + right[name]).to(value.dtype) for name, value in left.items()}


def norm(params: Params) -> Tensor:
    """Return the Euclidean norm of all entries together, accumulated in float64."""
    wide = torch.float64
    norms = [torch.linalg.vector_norm(value, dtype=wide) for value in params.values()]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros((), dtype=wide)


def random_direction(like: Params, generator: Generator) -> dict[str, Tensor]:
    """Return a vector of norm 1 over all named tensors, drawn evenly from the sphere."""
    drawn = {
        name: torch.randn(value.shape, dtype=value.dtype, generator=generator)
        for name, value in like.items()
    }
    length = float(norm(drawn))
    return {name: value / length for name, value in drawn.items()}


def cast_like(params: Params, like: Params) -> dict[str, Tensor]:
    """Return `params` in the names, order and dtypes of `like`; integers are rounded.

    Flower's strategies average integer buffers into floats, and FedAdam returns float64.
    """

    def cast(value: Tensor, dtype: torch.dtype) -> Tensor:
        rounded = value.is_floating_point() and not dtype.is_floating_point
        return (value.round() if rounded else value).to(dtype)

    return {name: cast(params[name], value.dtype) for name, value in like.items()}


def stacked(params: Sequence[Params], name: str) -> Tensor:
    """Return one array of each of some params, stacked.

    A class of mappings may have a static method of this name that does so at once for many of its
    own, or returns None.
    """
    at_once = getattr(type(params[0]), "stacked", None)
    values = None if at_once is None else at_once(params, name)
    return torch.stack([each[name] for each in params]) if values is None else values


def mismatch(params: Params, like: Params) -> str | None:
    """Return in which names or shapes `params` differs from `like`, or None."""
    if params.keys() == like.keys() and all(params[n].shape == like[n].shape for n in params):
        return None
    if missing := set(like) - set(params):
        return f"missing {_names(missing)}"
    if extra := set(params) - set(like):
        return f"unknown {_names(extra)}"
    for name, value in params.items():
        if value.shape != like[name].shape:
            return f"{name}: shape must be {tuple(like[name].shape)}, got {tuple(value.shape)}"
    return None


def difference(value: Tensor, origin: Tensor) -> Tensor:
    """Return `value − origin` in `value`'s dtype; 0 where both are the same infinity or NaN."""
    origin = origin.to(value.dtype)
    moved = value - origin
    if not value.is_floating_point() or all_finite(moved):
        return moved
    return moved.masked_fill(_equal(value, origin), 0.0)


def all_finite(value: Tensor) -> bool:
    """Return whether no entry is NaN or infinite.

    A sum is finite only if all entries are, and takes a thirtieth of the time of looking at each,
    which is left for sums that overflow.
    """
    return bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())


def not_finite(params: Params, like: Params | None = None) -> str | None:
    """Return which entry of `params` is NaN or infinite, or None.

    Entries that are the same in `like` do not count: a mask of −∞ is a constant.
    """
    for name, value in params.items():
        if not value.is_floating_point() or all_finite(value):
            continue
        constant = torch.tensor(False)
        if like is not None and name in like:
            constant = _equal(value, like[name].to(value.dtype))
        if not (torch.isfinite(value) | constant).all():
            return f"{name}: must be finite, got NaN or infinity"
    return None


def _equal(left: Tensor, right: Tensor) -> Tensor:
    return (left == right) | (left.isnan() & right.isnan())


def alike(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors hold the same values; NaN is the same as NaN."""
    if left.shape != right.shape:
        return False
    return bool(_equal(left, right).all())


def _names(names: Iterable[str]) -> str:
    names = [name or "''" for name in sorted(names)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def ulp(weights: Tensor) -> Tensor:
    """Return the distance of each weight, as float32, to the next larger size; float64."""
    size = weights.detach().float().abs()
    return (torch.nextafter(size, torch.full_like(size, math.inf)) - size).double()
