"""SignSGD: of every entry only the sign is uploaded."""

import math

import torch
from torch import Generator, Tensor

from defenses.defense import Defense, State, no_bound, same_bound
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.types import Params


def sign(*, magnitude: float | None = None) -> Defense:
    """Replace every entry by ±s, with one s per tensor: the mean magnitude of its entries.

    Source: Bernstein, Wang, Azizzadenesheli, Anandkumar, "signSGD: Compressed Optimisation for
    Non-Convex Problems", ICML 2018 (fixed s); Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback
    Fixes SignSGD and other Gradient Compression Schemes", ICML 2019, algorithm 1 without its
    feedback (mean magnitude). A zero becomes +s or −s at random, so that it is no third symbol;
    a tensor of zeros only has s = 0 and stays zero. Uploaded as a gradient these are the two
    symbols of the wire; uploaded weights are the sum with those sent, rounded. Promises no privacy.

    Args:
        magnitude: s for all entries, in units of the update, > 0; None for each tensor's mean.

    Raises:
        ValueError: `magnitude` is not positive and finite.
    """
    if magnitude is not None and not 0 < magnitude < math.inf:
        raise ValueError(f"magnitude: must be finite and > 0, got {magnitude}")

    def apply(
        params: Params, state: State, generator: Generator
    ) -> tuple[dict[str, Tensor], State]:
        return {name: _signs(value, magnitude, generator) for name, value in params.items()}, state

    return Defense(
        name="sign",
        apply=apply,
        promise=Promise(statement="hides the size of every entry; its sign is exact"),
        # √n times the mean magnitude of n entries is at most their norm.
        bound=same_bound if magnitude is None else no_bound,
    )


def _signs(value: Tensor, magnitude: float | None, generator: Generator) -> Tensor:
    if not value.numel():
        return value.clone()
    sizes = value.abs()
    if magnitude is None:
        dtype = torch.promote_types(value.dtype, torch.float32)
        shared = (sizes.sum(dtype=dtype) / value.numel()).to(value.dtype)
    else:
        shared = torch.tensor(magnitude, dtype=value.dtype)
    if sizes.amin() == 0:
        # A mask in the tensor's own dtype is three times faster than one in bool.
        coins = torch.randint(2, value.shape, dtype=value.dtype, generator=generator).sub_(0.5)
        value = coins.mul_(sizes.eq_(0)).add_(value)
    return torch.copysign(shared, value)


DEFENSE = Entry("sign", sign, paper="Bernstein et al., ICML 2018; Karimireddy et al., ICML 2019")
