"""Which tokens a client used: the rows of the token table that its update moved.

The gradient of row v is the sum of ∂loss/∂x over the inputs x with token v: zero unless v was an
input that a loss depends on. That holds over any number of local steps of SGD, momentum, FedProx
and Adam, whose moments of an untouched row are zero. Weight decay shrinks every untouched row by
one common factor, which is read off these rows and taken out.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NOISE = 6 * 1.4826  # standard deviations of normal noise, from a median absolute deviation
PARALLEL = 0.99  # cosine from which on a row has shrunk and nothing else


@dataclass(frozen=True)
class Moved:
    """How far each row of a token table moved.

    Attributes:
        sizes: Norm of each row of the update without the common shrink, shape (V,), float64.
        threshold: Size above which a row has moved by more than noise.
        shrink: The factor by which untouched rows changed, 0 without weight decay.
        relative: Whether sizes are in units of the norm of the row that was sent.
    """

    sizes: Float[Tensor, " vocabulary"]
    threshold: float
    shrink: float = 0.0
    relative: bool = False

    @property
    def rows(self) -> Bool[Tensor, " vocabulary"]:
        """The rows that have moved."""
        return self.sizes > self.threshold

    @property
    def blurred(self) -> bool:
        """Whether noise on all rows may hide some that have moved."""
        return self.threshold > 0 and not self.relative

    def rows_of(
        self, delta: Float[Tensor, "rows width"], sent: Float[Tensor, "rows width"]
    ) -> Bool[Tensor, " rows"]:
        """Return the rows of another table of this width that have moved, by the same rule.

        Of that table all rows may be used, so that none shows the noise.
        """
        return _sizes(delta, sent, self.shrink, relative=self.relative) > self.threshold


def moved(
    delta: Float[Tensor, "vocabulary width"], sent: Float[Tensor, "vocabulary width"]
) -> Moved:
    """Return how far each row of the token table moved.

    Where rows did not move at all, there is no noise, and all others are touched. Else a row is
    touched if its size is above median + 6·1.4826·MAD of all sizes (Hampel's rule: for normal
    noise six standard deviations), which takes more than half of the rows to be untouched. Where
    rows have merely shrunk, the rule is that of these rows.

    Args:
        delta: The update of the table.
        sent: The table as it was sent.
    """
    still = ~delta.any(dim=1)
    if bool(sent[still].any()) or bool(still.all()):
        sizes = torch.zeros(len(delta), dtype=torch.float64)
        sizes[~still] = delta[~still].double().norm(dim=1)
        return Moved(sizes, 0.0)
    delta, sent = delta.double(), sent.double()
    sizes, lengths = delta.norm(dim=1), sent.norm(dim=1)
    along = (delta * sent).sum(dim=1)
    factors = along / lengths.square().clamp(min=torch.finfo(torch.float64).tiny)
    shrunk = along.abs() > PARALLEL * sizes * lengths
    untouched = shrunk if int(shrunk.sum()) > 1 else torch.ones_like(shrunk)
    shrink = float(factors[untouched].median())
    relative = int(shrunk.sum()) > 1
    sizes = _sizes(delta, sent, shrink, relative=relative)
    return Moved(sizes, _threshold(sizes[untouched]), shrink, relative)


def _sizes(delta: Tensor, sent: Tensor, shrink: float, *, relative: bool) -> Tensor:
    """Return the norm of each row without the shrink.

    What remains of a shrunk row is the rounding of its entries, which grows with them.
    """
    delta, sent = delta.double(), sent.double()
    sizes, lengths = (delta - shrink * sent).norm(dim=1), sent.norm(dim=1)
    return sizes / lengths.where(lengths > 0, 1.0) if relative else sizes


def _threshold(sizes: Float[Tensor, " rows"]) -> float:
    """Return median + 6·1.4826·MAD."""
    median = sizes.median()
    return float(median + NOISE * (sizes - median).abs().median())
