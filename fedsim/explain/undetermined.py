"""Which entries of a reconstructed example its update says nothing of."""

import copy

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from adversary.inversion.hidden import depends_elsewhere, without_slope
from adversary.inversion.products import Products
from fedsim.core.doubled import doubled
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Observation, Params
from fedsim.explain.unseen import differs_in_training

MOST_WEIGHTS = 1_000_000  # of larger models, and of more examples, nothing is said
MOST_EXAMPLES = 64


def undetermined(
    model: nn.Module, observation: Observation, inputs: Float[Tensor, "n *shape"]
) -> Bool[Tensor, "n *shape"] | None:
    """Return the entries of reconstructed inputs that change no gradient.

    An attack gets such an entry from nowhere: it stands as the attack began.

    Args:
        model: The architecture; left as it is.
        observation: What the reconstruction is of.
        inputs: Reconstructed.

    Returns:
        A mask; None if there is no such entry, or if it cannot be said: of a large model, of one
        whose state or forward is another one in training, or of one with steps.
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
            masks = [_still(model, state, inputs.double()) for state in states]
    except Exception:  # a user's model may not run in float64, or have no second derivative
        return None
    if any(mask is None for mask in masks):
        return None
    mask = torch.stack([it for it in masks if it is not None]).all(dim=0)
    return mask if bool(mask.any()) else None


def _still(model: nn.Module, state: Params, inputs: Tensor) -> Tensor | None:
    """Return the entries that change no gradient at some weights; None if it cannot be said."""
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
    mask = without_slope(products, stream)
    return None if depends_elsewhere(products, mask, stream) else mask
