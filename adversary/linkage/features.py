"""What an upload looks like beside the others of its round: deviations, weighted and sketched."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Params, View

BUCKETS = 4096  # entries of a sketch; inner products of unit vectors are off by 1/64

Weigh = Callable[[str, Float[Tensor, " n"]], Float[Tensor, " n"]]
"""(name of a tensor, variance of its entries among the uploads) → weights of the entries."""


def sketched(view: View, weigh: Weigh, names: Sequence[str] | None = None) -> Tensor:
    """Return the deviations of a round's uploads from their mean, weighted, in few entries.

    Up to `BUCKETS` entries are kept as they are. More are added up in that many buckets, each with
    a random sign (M. Charikar, K. Chen, M. Farach-Colton, "Finding frequent items in data streams",
    ICALP 2002), the same in every round. An upload that is not finite has zeros. Uploads are read
    three times, a tensor at a time.

    Args:
        view: Of one round; its cohort is read.
        weigh: Gives the weights.
        names: Tensors to read; all floating ones if omitted.

    Returns:
        Rows of length 1, shape (uploads, at most `BUCKETS`), float32.

    Raises:
        ValueError: No upload is finite, or they have no tensor in common.
    """
    uploads = [observation.update.delta for observation in view.cohort]
    shapes, finite = _shapes(uploads, names)
    if not finite.any():
        raise ValueError("update: must be finite, got NaN or infinity")
    if not shapes:
        raise NotApplicable("update: must have what the attack compares, got none of it")
    entries, start = sum(shapes.values()), 0
    rows = torch.zeros(len(uploads), min(entries, BUCKETS))
    kept = [delta for delta, is_finite in zip(uploads, finite.tolist(), strict=True) if is_finite]
    for name, size in shapes.items():
        mean, variance = _moments(_values(kept, name), size)
        weight = weigh(name, variance)
        bucket, sign = torch.arange(start, start + size), torch.ones(())
        if entries > BUCKETS:
            stream = generator(0, "sketch", name)
            bucket = torch.randint(BUCKETS, (size,), generator=stream)
            sign = 2.0 * torch.randint(2, (size,), generator=stream) - 1
        for place, value in zip(finite.nonzero()[:, 0].tolist(), _values(kept, name), strict=True):
            rows[place].index_add_(0, bucket, (value - mean) * weight * sign)
        start += size
    return functional.normalize(rows, dim=1, eps=1e-30)


def evenly(name: str, variance: Float[Tensor, " n"]) -> Float[Tensor, " n"]:  # noqa: ARG001
    """Weigh all entries alike."""
    return torch.ones_like(variance)


def whitened(name: str, variance: Float[Tensor, " n"]) -> Float[Tensor, " n"]:  # noqa: ARG001
    """Weigh entries by one over their standard deviation, drawn towards the tensor's mean."""
    return (variance + variance.mean() + 1e-30).rsqrt()


def cosines(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Return inner products of rows, which have length 1."""
    return (rows @ rows.T).double()


def _shapes(
    uploads: Sequence[Params], names: Sequence[str] | None
) -> tuple[dict[str, int], Bool[Tensor, " uploads"]]:
    """Return the floating tensors that all uploads have, with their sizes; which are finite."""
    each, finite = [], []
    for delta in uploads:
        values = (
            (name, delta[name]) for name in (delta if names is None else names) if name in delta
        )
        sizes, is_finite = {}, True
        for name, value in values:
            if value.is_floating_point():
                sizes[name] = value.numel()
                is_finite = is_finite and bool(torch.isfinite(value).all())
        each.append(sizes)
        finite.append(is_finite)
    shared = {
        name: size for name, size in each[0].items() if all(s.get(name) == size for s in each)
    }
    return shared, torch.tensor(finite)


def _values(uploads: Sequence[Params], name: str) -> Iterator[Tensor]:
    return (delta[name].detach().flatten().float() for delta in uploads)


def _moments(values: Iterator[Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance of every entry (Welford's update)."""
    mean, squares, count = torch.zeros(size), torch.zeros(size), 0
    for value in values:
        count += 1
        off = value - mean
        mean += off / count
        squares += off * (value - mean)
    return mean, squares / max(1, count)
