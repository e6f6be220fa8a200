"""Subspace: a picture whose features have all windows in the span of a convolution's gradient.

fedsim's own, after the subspace method of blind identification (`adversary.inversion.windows`).

Idea: in a deep layer few places are left, and many channels. The rows of its gradient then span the
windows of its input, for one example, whatever the layers behind it do, and the label does not
matter. Few inputs have all of their windows there. A picture with such an input is found by descent
through the layers before it, without any gradient of theirs.

*Server must know*: the weights sent, the update, that it is of one example in one step.
*Exact when*: the convolution's input has no fewer numbers than the picture, and descent through the
layers before it does not get stuck: after one stage of a ResNet, not after six plain convolutions.
*Differs from the paper*: there is none.
"""

import warnings

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.inversion.applicable import check_inputs
from adversary.inversion.features import Features, candidates, features_of, pictured
from adversary.inversion.priors import data_range
from adversary.inversion.reading import batch_gradient, batch_size
from adversary.labels.head import input_shape
from adversary.workspace import workspace
from fedsim.core.boundary import PASSING
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.ranges import AtLeastOne
from fedsim.core.types import Auxiliary, LocalTraining, View

FITS = 1e-3  # share of inputs outside their space above which another start is tried
STUCK = 1e-2  # above which there is no answer
STARTS = 2


def subspace(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    iterations: AtLeastOne = 400,
    starts: AtLeastOne = STARTS,
) -> Float[Tensor, "1 *shape"]:
    """Return the picture of one example.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture; pictures, where there are any, are where descents begin.
        generator: Chooses the auxiliary pictures of later starts.
        iterations: Steps of each descent; ≥ 1.
        starts: Descents, at most: the mean auxiliary picture or grey, then single ones; ≥ 1.

    Raises:
        ValueError: There are several examples or steps, no convolution has few enough places, or
            none has a gradient that leaves few inputs, or every descent gets stuck.
    """
    check_inputs(view, auxiliary)
    latest = view.latest
    if (count := batch_size(latest)) != 1:
        raise NotApplicable(
            f"num_examples: must be 1, whose windows alone a gradient spans, got {count}"
        )
    if reason := hindrance(auxiliary):
        raise NotApplicable(f"subspace: {reason}")
    gradient, refusals = batch_gradient(latest, auxiliary), list[str]()
    features = features_of(workspace(view, auxiliary), gradient, refusals)
    if features is None:
        raise NotApplicable(refusals[0] if refusals else "update: a gradient must reach places")
    best, least = _descended(features, auxiliary, generator, iterations, starts)
    if least > STUCK:
        raise ValueError(
            f"{features.name}: descent must bring the picture's inputs into their space, got "
            f"{least:.1g} of them outside"
        )
    low, high = (edge.to(best.dtype) for edge in data_range(auxiliary))
    inputs, dimensions = features.basis.shape
    warnings.warn(
        f"the {inputs:,} inputs of {features.name} lie in a space of {dimensions} dimensions; "
        f"{least:.1g} of the picture's are outside",
        Remark,
        stacklevel=2,
    )
    return torch.maximum(torch.minimum(best, high), low).float()


def _descended(
    features: Features, auxiliary: Auxiliary, generator: Generator, iterations: int, starts: int
) -> tuple[Float[Tensor, "1 *shape"], float]:
    """Return the picture of the best descent, and the share of its inputs outside their space."""
    best, least = _start(auxiliary, generator, 0), torch.inf
    for place in range(starts):
        begin = _start(auxiliary, generator, place)
        picture, misfit = pictured(features, begin, iterations=iterations)
        if misfit < least:
            best, least = picture, misfit
        if least < FITS:
            break
    return best, least


def hindrance(auxiliary: Auxiliary) -> str:
    """Return why no update of a model can be attacked; empty where one can."""
    if len(input_shape(auxiliary)) != 3:
        return f"inputs must be pictures, got shape {input_shape(auxiliary)}"
    try:
        return "" if candidates(auxiliary) else (
            "a convolution must have no more places than output channels, and windows that "
            "overlap, got none"
        )  # fmt: skip
    except PASSING:
        raise
    except Exception as error:  # of a user's model
        return f"model: must run on one picture, got {type(error).__name__}"


def _start(auxiliary: Auxiliary, generator: Generator, place: int) -> Float[Tensor, "1 *shape"]:
    """Return where a descent begins: at the mean auxiliary picture, or at single ones."""
    pictures = auxiliary.inputs
    if pictures is None or not len(pictures):
        shape = (1, *input_shape(auxiliary))
        low, high = (edge.double() for edge in data_range(auxiliary))
        noise = torch.rand(shape, generator=generator, dtype=torch.float64) if place else 0.5
        return (low + (high - low) * noise).expand(shape).clone()
    if not place:
        return pictures.double().mean(dim=0, keepdim=True)
    chosen = int(torch.randint(len(pictures), (1,), generator=generator))
    return pictures[chosen : chosen + 1].double()


def planned(auxiliary: Auxiliary, local: LocalTraining, count: int) -> str:
    """Return why every update will be refused; empty where it may not be.

    Args:
        auxiliary: The architecture.
        local: How clients train.
        count: Examples of an update.
    """
    reason = ""
    if count != 1:
        reason = f"num_examples must be 1, got {count}"
    elif local.upload == "weights" and local.epochs > 1:
        reason = f"local must be one step, got {local.epochs}"
    reason = reason or hindrance(auxiliary)
    return f"will refuse every update: {reason}" if reason else ""


ATTACKS = (
    Attack(
        name="subspace",
        family="reconstruction",
        on_device=True,
        infer=subspace,
        summary="a picture whose features fit the span of a late convolution's gradient",
        plan=planned,
        has_twin=False,
    ),
)
