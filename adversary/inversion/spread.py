"""How far the answers of several restarts lie apart, number by number.

Where restarts that began elsewhere end alike, the upload says what the answer is; where they end
apart, their prior or their start does. It is no error: restarts may agree on a wrong answer.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fedsim.core.types import Estimate


def estimated(
    guesses: Float[Tensor, "rows batch *shape"], losses: Float[Tensor, " rows"]
) -> Float[Tensor, "batch *shape"] | Estimate:
    """Return the guess of the lowest loss, with its uncertainty where others can be compared.

    Args:
        guesses: Of each restart.
        losses: Of each; those of some must be finite.

    Returns:
        The uncertainty is the standard deviation over all restarts with a finite loss. Of a batch,
        each restart's examples are put in the order in which they are nearest to the best one's.
        Without other restarts it is the guess alone.
    """
    finite = torch.isfinite(losses)
    best = guesses[int(losses.where(finite, torch.inf).argmin())]
    others = guesses[finite]
    if len(others) < 2:
        return best
    return Estimate(best, torch.stack([in_order(each, best) for each in others]).std(dim=0))


def in_order(guess: Tensor, best: Tensor) -> Tensor:
    """Return the examples of a guess in the order of those that they are nearest to.

    Both have shape (batch, *shape).
    """
    from scipy.optimize import linear_sum_assignment

    apart = torch.cdist(best.flatten(1).double(), guess.flatten(1).double()).square()
    return guess[torch.as_tensor(linear_sum_assignment(apart.numpy())[1])]
