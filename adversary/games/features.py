"""What a predictor looks at: an upload's direction, its size, and what can be read off it."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.games.evidence import Evidence

ROUNDING = 1e-5  # range of a column, in units of its largest entry, that rounding may explain
SMALLEST = 1e-6  # norm, in units of the mean over trials, below which it counts as that

Columns = Callable[[Evidence], Float[Tensor, "n features"]]
"""What the adversary has of n trials → what a predictor looks at."""


def columns_of(evidence: Evidence, *, entries: bool = False, magnitudes: bool = False) -> Columns:
    """Return the columns that tell shadow trials apart, for these and for other trials.

    Logarithms of norms, and what can be read off an upload, are always among them. A column that
    differs by rounding alone is left out. Values of other trials count as the nearest value of a
    shadow trial: an adversary that meets a defense it has never seen does not extrapolate.

    Args:
        evidence: Of the shadow trials.
        entries: Whether the upload's entries, in units of its norm, are among the columns.
        magnitudes: Whether these are among them without their signs too.
    """
    floors = (SMALLEST * _norms(evidence).mean(dim=0)).clamp(min=1e-30)

    def table(trials: Evidence) -> Tensor:
        logarithms = _norms(trials).maximum(floors).log()
        parts = [logarithms] if trials.readings is None else [logarithms, trials.readings]
        parts += [_shares(trials.uploads)] if entries else []
        parts += [_shares(trials.uploads).abs()] if magnitudes else []
        return torch.cat(parts, dim=1)

    rows = table(evidence)
    low, high = rows.amin(dim=0), rows.amax(dim=0)
    scale = torch.maximum(low.abs(), high.abs())
    scale[: len(floors)].clamp_(min=1.0)  # of logarithms rounding is absolute
    kept = torch.nonzero(high - low > ROUNDING * scale)[:, 0]
    low, high = low[kept], high[kept]

    def columns(trials: Evidence) -> Tensor:
        if not len(kept):
            return torch.zeros(len(trials.uploads), 1)
        return table(trials)[:, kept].clamp_(low, high)

    return columns


def _norms(evidence: Evidence) -> Float[Tensor, "n norms"]:
    """Return the norm of each upload, and of its tensors where they are given."""
    whole = evidence.uploads.norm(dim=1, keepdim=True)
    return whole if evidence.norms is None else torch.cat([whole, evidence.norms], dim=1)


def _shares(uploads: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return uploads / uploads.norm(dim=1, keepdim=True).clamp(min=1e-30)
