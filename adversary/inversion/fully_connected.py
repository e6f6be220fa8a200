"""Inputs of a fully connected first layer, from its gradient alone.

Single examples: L. T. Phong, Y. Aono, T. Hayashi, L. Wang, S. Moriai, "Privacy-preserving deep
learning via additively homomorphic encryption", 2018: a unit's weight gradient over its bias
gradient is the input. In a batch that holds for a unit on which one example alone is active.
Whole batches behind ReLU are in `adversary.inversion.relu_batch`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.inversion.chain import first_linear
from adversary.labels.head import input_shape
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary

AGREE = 1e-5  # relative distance of two units' ratios that show the same example
ALIVE = 1e-9  # gradient below this share of the largest is none


@dataclass(frozen=True, eq=False)
class AgreedInputs:
    """Inputs found.

    Attributes:
        inputs: Shape (n, features).
        units: On how many units each was seen, shape (n,).
    """

    inputs: Float[Tensor, "n features"]
    units: Tensor


def first_layer(
    gradient: Mapping[str, Tensor], auxiliary: Auxiliary
) -> tuple[Float[Tensor, "units features"], Float[Tensor, " units"]]:
    """Return the gradients of the weight and bias of the layer that takes the inputs.

    Args:
        gradient: Of all trained parameters.
        auxiliary: The architecture.

    Raises:
        NotApplicable: That layer is not linear with a trained bias, or none of it moved.
    """
    layer = first_linear(auxiliary.model, input_shape(auxiliary))
    if missing := {f"{layer}.weight", f"{layer}.bias"} - set(gradient):
        raise NotApplicable(f"{min(missing)}: must be in the update")
    weight, bias = gradient[f"{layer}.weight"], gradient[f"{layer}.bias"]
    if not bool(bias.any()):
        raise NotApplicable(
            f"update: a gradient must reach the first layer's biases, {layer}.bias, got zero"
        )
    return weight, bias


def ratios(
    grad_weight: Float[Tensor, "units features"], grad_bias: Float[Tensor, " units"], count: int
) -> AgreedInputs:
    """Return the inputs on which most units agree, at most `count`.

    A unit with several examples gives a mixture of them, on which no second one agrees; units that
    stand alone come last, those that mix least first, as far as their ratios' sizes tell.

    Args:
        grad_weight: dL/dW.
        grad_bias: dL/db.
        count: How many inputs there are.

    Raises:
        ValueError: No gradient reaches a bias.
    """
    if not bool(grad_bias.any()):
        raise ValueError("update: a gradient must reach the first layer's biases, got zero")
    alive = grad_bias.abs() > ALIVE * grad_bias.abs().max()
    weight, bias = grad_weight[alive], grad_bias[alive]
    if count == 1:
        mean = bias @ weight / bias.square().sum()
        return AgreedInputs(mean[None], torch.tensor([len(bias)]))
    rows = weight / bias[:, None]
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    near = apart <= AGREE * rows.norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)
    agreeing, left = near.sum(dim=1), torch.ones(len(rows), dtype=torch.bool)
    inputs, units = [], []
    order = sorted(range(len(rows)), key=lambda k: (-int(agreeing[k]), float(rows[k].norm())))
    for k in order:
        if left[k] and len(inputs) < count:
            same = near[k] & left
            unit_bias = bias[same]
            inputs.append(unit_bias @ weight[same] / unit_bias.square().sum())
            units.append(int(same.sum()))
            left &= ~near[k]
    return AgreedInputs(torch.stack(inputs), torch.tensor(units))
