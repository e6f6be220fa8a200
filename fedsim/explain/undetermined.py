"""How much of each entry of a reconstructed example its update does not hold."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from adversary.inversion.hidden import depends_elsewhere, faithful, without_slope
from adversary.inversion.products import Products
from adversary.inversion.shares import combined, kernel_of, shares
from fedsim.core.doubled import doubled
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Observation, Params
from fedsim.explain.unseen import differs_in_training

MOST_WEIGHTS = 1_000_000  # of larger models, and of more examples, nothing is said
MOST_EXAMPLES = 64
MOST_ENTRIES = 1100  # of all examples: of more, single entries are looked at, but no directions,
MOST_PRODUCTS = 2**26  # and so if entries times weights are more
LEAST = 1e-6  # share: rounding
NEARBY = 0.05  # standard deviation of a second answer, at which as many directions must be hidden


@dataclass(frozen=True, eq=False)
class _Look:
    """Entries that change no gradient at some weights; J there and at an answer nearby."""

    entries: Bool[Tensor, "n *shape"]
    products: Products | None
    nearby: Products | None


def undetermined(
    model: nn.Module, observation: Observation, inputs: Float[Tensor, "n *shape"]
) -> Float[Tensor, "n *shape"] | None:
    """Return the share of each entry of reconstructed inputs that no gradient depends on.

    1 is an entry that an attack gets from nowhere: it stands as the attack began. Shares add up to
    the number of directions of the inputs that are hidden, to first order at this answer.

    Args:
        model: The architecture; left as it is.
        observation: What the reconstruction is of.
        inputs: Reconstructed.

    Returns:
        Shares, float32; None if all are 0, or if it cannot be said: of a large model, of one whose
        state or forward is another one in training, or of one with steps.
    """
    weights = sum(it.numel() for it in model.parameters())
    if weights > MOST_WEIGHTS or len(inputs) > MOST_EXAMPLES or any(True for _ in model.buffers()):
        return None
    states = [observation.sent]
    if observation.local.upload == "weights":  # the last of its local steps is near the sum
        delta = observation.update.delta
        states.append({name: value + delta.get(name, 0) for name, value in states[0].items()})
    try:
        with global_stream(0, "undetermined"):
            values = _shares([_look(model, state, inputs.double()) for state in states])
    except Exception:  # a user's model may not run in float64, or have no second derivative
        return None
    return values if values is not None and bool(values.any()) else None


def _shares(looks: Sequence[_Look | None]) -> Tensor | None:
    kept = [it for it in looks if it is not None]
    if len(kept) < len(looks):
        return None
    whole = torch.stack([it.entries for it in kept]).all(dim=0).float()
    return torch.maximum(whole, _of_directions(kept).view(whole.shape))


def _of_directions(looks: Sequence[_Look]) -> Tensor:
    """Return the shares of directions that are hidden at all weights; 0 where they are not known.

    Entries that are only dead at this answer have no part in it: nearby, more would show.
    """
    nothing, stream = torch.zeros(looks[0].entries.numel()), generator(0, "shares")
    of_all = [it.products for it in looks if it.products is not None]
    nearby = [it.nearby for it in looks if it.nearby is not None]
    if len(of_all) < len(looks):
        return nothing
    rows, kernel = [], torch.zeros(0)
    for products in of_all:
        rows.append(combined(products, stream))
        kernel = kernel_of(torch.cat(rows))
        if not len(kernel):
            return nothing
    other = kernel_of(torch.cat([combined(products, stream) for products in nearby]))
    values = shares(kernel).float()
    return values * (values > LEAST) if len(kernel) <= len(other) else nothing


def _look(model: nn.Module, state: Params, inputs: Tensor) -> _Look | None:
    """Return what changes no gradient at some weights; None if it cannot be said."""
    working = copy.deepcopy(model)
    working.load_state_dict(dict(state))
    if differs_in_training(working, inputs[0]):
        return None
    working = doubled(working).eval()
    names = [name for name, value in working.named_parameters() if value.requires_grad]
    with torch.no_grad():
        unlikely = working(inputs).argmin(dim=1)  # its gradient is large
    stream = generator(0, "undetermined")
    products = Products(working, names, inputs, unlikely)
    entries = without_slope(products, stream)
    if depends_elsewhere(products, entries, stream):
        return None
    weights = sum(dual.numel() for dual in products.duals)
    few = inputs.numel() <= MOST_ENTRIES and inputs.numel() * weights <= MOST_PRODUCTS
    if not few or not faithful(products, stream):
        return _Look(entries, None, None)
    noise = torch.randn(inputs.shape, generator=stream, dtype=inputs.dtype)
    other = Products(working, names, inputs + NEARBY * noise, unlikely)
    return _Look(entries, products, other)
