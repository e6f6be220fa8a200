"""R-GAP and the hybrid: from the last layer back to the input of one example, layer by layer.

C. Chen, N. D. F. Campbell, "Analysing training-data leakage from gradients through linear systems
and gradient matching", BMVC 2022 (arXiv 2210.13231), the hybrid; J. Zhu, M. Blaschko, "R-GAP:
recursive gradient attack on privacy", ICLR 2021.

Idea: on its far side everything a layer does is known: its output and the gradient there. Its input
solves a linear system: the weights times the input are the output, and its weight's gradient is
linear in the input too.

*Server must know*: the weights sent, and the gradient of one example; its label is not needed where
the head has a bias.
*Exact when*: every layer's system has full rank (`fedsim explain`), and activations are invertible.
ReLU is walked back through where it is active.
*Differs from the paper*: labels come from the update. Linear layers take all units, not the first
one with a gradient. Systems are solved in float64 by their normal equations, biases of convolutions
are subtracted, and the gradient of an input is taken after its correction. Where a system leaves
directions open, the hybrid takes the picture of least total variation that explains the layer
exactly (`adversary.inversion.affine`), instead of descending on a weighted sum; and where that
happens behind the first layer, it goes on with Gauss-Newton steps on the whole gradient, kept if
they bring it nearer. A model with a layer that cannot be walked back through (branches, pooling,
normalisation) is handed over to gradient matching (`inverting_gradients`), and the answer says so.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.batch_labels import batch_labels
from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.costs import Cost, of_descent
from adversary.inversion.affine import smoothest
from adversary.inversion.applicable import check_inputs
from adversary.inversion.chain import NotWalkableError, chain, check_trained
from adversary.inversion.joint import gauss_newton, misfit, of_gradient
from adversary.inversion.reading import batch_gradient, batch_size, precise, weights
from adversary.inversion.recursive import walk
from adversary.inversion.solutions import Solution, cost
from adversary.inversion.systems import ConvSystem
from adversary.inversion.verification import held_to_upload
from adversary.labels.head import input_shape
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.ranges import AtLeastOne
from fedsim.core.types import Auxiliary, Estimate, View


def r_gap(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
) -> Float[Tensor, "1 *shape"]:
    """Return the input of one example, the least-norm solution around mid-grey where it is open.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Of the label attack.

    Raises:
        ValueError: There is more than one example or step, or a layer cannot be walked back
            through; names it.
    """
    return _walked(view, auxiliary, generator, smooth=False)


def hybrid(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    steps: AtLeastOne = 20,
    iterations: AtLeastOne = 1000,
) -> Float[Tensor, "1 *shape"] | Estimate:
    """Return the input of one example, the smoothest picture where the first layer leaves it open.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Of the label attack.
        steps: Gauss-Newton steps where a later layer leaves its input open.
        iterations: Of gradient matching, where a layer cannot be walked back through.

    Raises:
        ValueError: There is more than one example or step; or as `inverting_gradients`.
    """
    if steps < 1:
        raise NotApplicable(f"steps: must be at least 1, got {steps}")
    try:
        return _walked(view, auxiliary, generator, smooth=True, steps=steps)
    except NotWalkableError as reason:
        warnings.warn(f"{reason}; gradient matching instead", Remark, stacklevel=2)
    return inverting_gradients(view, auxiliary, generator, restarts=1, iterations=iterations)


def _walked(
    view: View, auxiliary: Auxiliary, generator: Generator, *, smooth: bool, steps: int = 0
) -> Tensor:
    check_inputs(view, auxiliary)
    latest, shape = view.latest, input_shape(auxiliary)
    if (size := batch_size(latest)) != 1:
        raise NotApplicable(f"num_examples: must be 1 to walk back layer by layer, got {size}")
    layers = chain(auxiliary.model, shape)
    check_trained(auxiliary.model, layers)
    gradient, sent = batch_gradient(latest, auxiliary), weights(latest, auxiliary)
    model = precise(workspace(view, auxiliary))
    labels = batch_labels(view, auxiliary, generator)

    def correct(place: int, system: ConvSystem, solution: Solution) -> Tensor:  # noqa: ARG001
        return smoothest(solution) if smooth and place == 0 else solution.point

    taken = walk(layers, sent, gradient, int(labels[0]), correct)
    x = taken[-1].input.view(1, *shape)
    if smooth and any(step.hidden for step in taken[:-1]):
        residual = of_gradient(model, sent, gradient, labels, latest.local.label_smoothing)
        fit = gauss_newton(residual, x.clamp(0, 1), steps=steps)
        x = fit.inputs if fit.error < misfit(residual, x) else x
    return x


def _cost(auxiliary: Auxiliary, count: int, options: Mapping[str, Any]) -> Cost | None:
    """Return what the walk costs, from the shapes of its layers; None where it is refused."""
    shape, smooth = input_shape(auxiliary), "steps" in options
    try:
        layers = chain(auxiliary.model, shape)
    except NotWalkableError:
        rows = {"rows": 1, "dtype": torch.float32}
        return of_descent(auxiliary.model, shape, count, **rows) if smooth else None
    convs = [cost(layer) for layer in layers if layer.kind == "conv"]
    weights = sum(value.numel() for value in auxiliary.model.state_dict().values())
    seconds = sum(it.seconds or 0.0 for it in convs)
    return Cost(seconds, max((it.num_bytes for it in convs), default=0.0) + 24.0 * weights)


ATTACKS = (
    Attack(
        name="r-gap",
        family="reconstruction",
        on_device=True,
        infer=held_to_upload(r_gap),
        summary="one input, by a linear system per layer from the last to the first",
        has_twin=False,
        cost=_cost,
    ),
    Attack(
        name="hybrid",
        family="reconstruction",
        on_device=True,
        infer=held_to_upload(hybrid),
        summary="r-gap, and the smoothest picture that fits where a layer leaves it open",
        has_twin=False,
        cost=_cost,
    ),
)
