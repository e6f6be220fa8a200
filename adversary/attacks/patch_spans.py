"""Patch spans: a whole batch of a vision transformer's pictures, without labels.

fedsim's own; spans as in I. Petrov et al., "DAGER: exact gradient inversion for large language
models", NeurIPS 2024, of pictures instead of token ids.

Idea: the gradient of a linear layer is ΔᵀU, with a row of U per token and example, and spans all
inputs of all examples. Where a batch has fewer tokens than the layer has inputs and outputs, a
picture of the batch is one whose tokens lie in the spans of the first layers. That holds of one
picture at a time. Descents on pixels solve it (`adversary.inversion.token_descent`).

*Server must know*: the weights sent, the gradient of one step, and the number of examples.
*Exact when*: descents end at the client's pictures. A remark says how many answers lie in the
spans, and how far the upload simulated on a whole answer is from the client's: blends of pictures
lie in the spans, too, where no attention or activation comes before the layers. Rounding of
float32 gradients hides the weakest directions of spans.
*Differs from the paper*: DAGER tests a finite vocabulary. Pixels are continuous, and descended on.
"""

import copy
import warnings

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from adversary.attack import Attack
from adversary.inversion.applicable import check_inputs
from adversary.inversion.evidence import Evidence
from adversary.inversion.priors import data_range
from adversary.inversion.reading import batch_gradient, batch_size, precise
from adversary.inversion.token_descent import pictures, polished
from adversary.inversion.token_misfit import GREY, Misfit
from adversary.inversion.token_spans import outsides, structure_of
from adversary.labels.head import input_shape
from adversary.steps import steps_of
from adversary.workspace import Workspace, loaded, workspace
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.ranges import AboveZero, AtLeastOne
from fedsim.core.types import Auxiliary, LocalTraining, Observation, View

POLISH = 100  # iterations in float64


def patch_spans(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    restarts: AtLeastOne = 2,
    iterations: AtLeastOne = 250,
    misfit: AboveZero = 1.0,
) -> Float[Tensor, "k *shape"]:
    """Return the pictures of a batch, in any order, float64; fewer where descents come to fewer.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Draws where descents begin.
        restarts: Descents for each example; ≥ 1.
        iterations: Of L-BFGS, of each descent; ≥ 1.
        misfit: What of a picture's tokens may lie outside the spans, in that of grey; > 0.
            Others are not returned.

    Raises:
        ValueError: As for `adversary.inversion.token_spans.structure_of`, the client took several
            steps, the batch fills the spans, these do not stand out of rounding, or no picture
            comes near enough.
    """
    check_inputs(view, auxiliary)
    latest, shape, work = view.latest, input_shape(auxiliary), workspace(view, auxiliary)
    gradient, count = batch_gradient(latest, auxiliary), batch_size(latest)
    structure = work.lasting(structure_of)
    usable = structure.usable(count)
    if not usable:
        raise NotApplicable(structure.refusal(count))
    double, pixels = precise(work), structure.pixels
    said = outsides(usable, gradient, count)
    if not said:
        raise ValueError(
            f"update: {count} × {usable[0].rank(1)} directions of tokens must exceed the rounding "
            f"of gradients such as {usable[0].module}'s, got fewer"
        )
    answer = pictures(
        Misfit(work.part(_single), said, shape, pixels),
        count,
        generator,
        restarts=restarts,
        iterations=iterations,
    )
    answer = polished(Misfit(double, said, shape, pixels), answer, min(POLISH, iterations))
    if not bool((near := answer.misfits < misfit).any()):
        least = float(answer.misfits.min())
        raise ValueError(f"misfit: must be below {misfit:g} of a picture, got {least:.1g}")
    images = _images(answer.points[near], pixels, auxiliary)
    layers = ", ".join(it.reader.module for it in said)
    sentence = f"{answer.solved} of {count} pictures lie in the spans of {layers}"
    warnings.warn(sentence + _explains(images, latest, auxiliary), Remark, stacklevel=2)
    return images


def _images(points: Tensor, pixels: Tensor, auxiliary: Auxiliary) -> Float[Tensor, "k *shape"]:
    """Return points as pictures in the range of the data, grey where no patch lies."""
    low, high = (edge.double() for edge in data_range(auxiliary))
    whole = torch.full_like(points, GREY)
    whole[:, pixels] = points[:, pixels]
    images = whole.unflatten(1, input_shape(auxiliary))
    return images.maximum(low.clamp(max=0.0)).minimum(high.clamp(min=1.0))


def planned(auxiliary: Auxiliary, local: LocalTraining, count: int) -> str:
    """Return why every update will be refused; empty where it may not be.

    Args:
        auxiliary: The architecture.
        local: How clients train.
        count: Examples of an update.
    """
    reason = ""
    try:
        structure = structure_of(auxiliary)
    except NotApplicable as error:
        reason = str(error)
    else:
        if not structure.usable(count):
            reason = structure.refusal(count)
        elif (steps := steps_of(local, count)) > 1:
            reason = f"local must be one step, got {steps}"
    return f"will refuse every update: {reason}" if reason else ""


def _explains(
    images: Float[Tensor, "k *shape"], observation: Observation, auxiliary: Auxiliary
) -> str:
    """Return how far the upload of a whole answer is from the client's; empty of others."""
    misfit = Evidence(observation, auxiliary, None).misfit(images, ordered=False)
    if misfit is None:
        return ""
    return f"; the upload simulated on them differs by {misfit:.1g} of the client's"


def _single(work: Workspace) -> nn.Module:
    """Return the model sent, in its own precision."""
    model = loaded(copy.deepcopy(work.auxiliary.model), work.sent)
    return model.eval().requires_grad_(requires_grad=False)


ATTACKS = (
    Attack(
        name="patch-spans",
        family="reconstruction",
        on_device=True,
        infer=patch_spans,
        summary="a batch of a vision transformer's pictures, from spans of its tokens",
        plan=planned,
        has_twin=False,
    ),
)
