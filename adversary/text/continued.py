"""Which tokens follow each prefix, and how often: read off the head's gradient.

The gradient of the head's weight is Σ (c_n·p_n − y_n) h_nᵀ / N over the distinct prefixes n, with
their counts c_n, probabilities p_n, features h_n and next tokens y_n. With fewer prefixes than
features the h_n are independent, and their coefficients are a least-squares solution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

WHOLE = 0.25  # distance of a count to a whole number that noise may make


@dataclass(frozen=True)
class Batch:
    """Texts with the target after their last token.

    Attributes:
        texts: Token ids.
        last: What follows each.
        whole: Whether all counts are whole numbers that agree with one another.
    """

    texts: Sequence[tuple[int, ...]]
    last: Sequence[int]
    whole: bool


def continued(
    prefixes: Sequence[tuple[int, ...]],
    gradient: Float[Tensor, "classes width"],
    features: Float[Tensor, "prefixes width"],
    chances: Float[Tensor, "prefixes classes"],
) -> Batch:
    """Return the texts of a batch, each as often as it occurs.

    Args:
        prefixes: All distinct ones.
        gradient: Of the head's weight.
        features: What the head takes at the last token of each prefix.
        chances: Its probabilities of the next token.
    """
    solved = torch.linalg.lstsq(features.double().T, gradient.double().T, driver="gelsd").solution
    uses = (solved / chances).median(dim=1).values  # c_n / N: most tokens are no targets
    targets = uses[:, None] * chances - solved
    unit = uses[uses > 0].min() if bool((uses > 0).any()) else torch.tensor(1.0)
    counts = targets / unit
    rounded = counts.round().long()
    whole = bool((counts - rounded).abs().max() < WHOLE) and bool((rounded >= 0).all())
    texts, last = [], []
    place = {prefix: row for row, prefix in enumerate(prefixes)}
    for row, token in (rounded > 0).nonzero().tolist():
        prefix, count = prefixes[row], int(rounded[row, token])
        longer = place.get((*prefix, token))
        if longer is None:
            texts += [prefix] * count
            last += [token] * count
        else:
            whole &= count == int(rounded[longer].sum())
    return Batch(texts, last, whole)
