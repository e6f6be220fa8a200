"""Which tokens are targets, when of an update only the signs were uploaded.

fedsim's own. Signs of zeros are drawn at random, so that the rows of the token table tell nothing
by their size. Row v of the head is dense, and has the sign of p_v·h summed over all targets unless
v is one of them: then it has that of (p_v − 1)h, which is nearly the opposite. The model sent tells
both means, from auxiliary text.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adversary.text.moments import Moments

ALIKE = 1e-3  # relative spread of sizes that are one size and the rounding of uploaded weights
FIRST = 4096  # entries that are looked at before all others
TURNS = 64  # of the two means, at most


def only_signs(update: Tensor) -> bool:
    """Return whether all entries of an update are of one size."""
    sizes = update.flatten()[:FIRST].abs()
    if len(sizes) and float(sizes.max() - sizes.min()) > 3 * ALIKE * float(sizes.max()):
        return False
    sizes = update.double().abs().flatten()
    mean = float(sizes.mean())
    return len(sizes) > 1 and mean > 0 and float((sizes - mean).abs().max()) <= ALIKE * mean


def present(
    head: Float[Tensor, "vocabulary width"], moments: Moments
) -> Bool[Tensor, " vocabulary"]:
    """Return the tokens that are targets, from the signs of the head's gradient.

    Args:
        head: Any positive multiple of the signs.
        moments: Of the model sent.
    """
    back = torch.linalg.pinv(moments.whiten)
    target, other = (_unit(mean @ back) for mean in (moments.target, moments.other))
    scores = (head.double().sign() * (target - other)).sum(dim=1)
    low, high = scores.min(), scores.max()
    for _ in range(TURNS):  # two groups of scores: the mean of each, and the middle between them
        above = scores > (low + high) / 2
        if above.all() or not above.any():
            break
        low, high = scores[~above].mean(), scores[above].mean()
    return scores > (low + high) / 2


def _unit(rows: Float[Tensor, "vocabulary width"]) -> Float[Tensor, "vocabulary width"]:
    return torch.nn.functional.normalize(rows, dim=1)
