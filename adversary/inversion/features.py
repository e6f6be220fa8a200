"""Inputs of convolutions that one example's gradient gives away, and a picture that has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from adversary.inversion.lbfgs import lbfgs
from adversary.inversion.priors import total_variation
from adversary.inversion.rows import still
from adversary.inversion.windows import Windows, inputs_in_span, spans_windows
from adversary.labels.head import input_shape
from adversary.workspace import Workspace, loaded
from fedsim.core.attention import plain_attention
from fedsim.core.doubled import doubled
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator as derived
from fedsim.core.rng import global_stream
from fedsim.core.types import Auxiliary, Params

PROBES = 3  # random inputs whose slopes say which places are reached
REACHED = 1e-6  # singular value of slopes, of the largest
SMOOTH, FALL, STAGES = 1e-3, 0.3, 10  # weight of the total variation: first, factor, how often
SCALE = 10.0  # logarithm of the picture's scale, per unit of its variable
HISTORY = 50


class _ReachedError(Exception):
    """The last layer that is needed has its input."""


@dataclass(frozen=True, eq=False)
class Features:
    """What the input of one convolution is known of: that it lies in a linear space.

    Attributes:
        model: A copy at the weights sent, float64, in training mode.
        name: Of the convolution.
        basis: Of the space, orthonormal, (numbers, dimensions).
    """

    model: nn.Module
    name: str
    basis: Float[Tensor, "n k"]

    def of(self, pictures: Float[Tensor, "1 *shape"]) -> Float[Tensor, " n"]:
        """Return the convolution's input; layers behind it do not run."""
        values: list[Tensor] = []

        def take(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            values.append(given[0])
            raise _ReachedError

        handle = self.model.get_submodule(self.name).register_forward_pre_hook(take)
        try:
            with plain_attention():
                self.model(pictures)
        except _ReachedError:
            pass
        finally:
            handle.remove()
        return values[0].flatten()

    def misfit(self, pictures: Float[Tensor, "1 *shape"]) -> Float[Tensor, ""]:
        """Return the squared share of the input that is outside the space."""
        values = self.of(pictures)
        outside = values - self.basis @ (self.basis.T @ values)
        return outside.square().sum() / values.square().sum().clamp(min=1e-30)


@dataclass(frozen=True)
class Candidate:
    """A convolution whose gradient can have the span of its windows.

    Attributes:
        name: Of the module.
        numbers: In its input.
    """

    name: str
    numbers: int


def candidates(auxiliary: Auxiliary) -> list[Candidate]:
    """Return the convolutions whose gradient can have the span of their windows, as they run.

    Raises:
        Exception: Whatever the model raises on one picture.
    """
    model, spanning = still(auxiliary.model), list[Candidate]()

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            if spans_windows(module, out[0][0].numel()):
                spanning.append(Candidate(name, given[0].numel()))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note(name))
    with torch.no_grad(), global_stream(0, "candidates"):
        model(_random(auxiliary, 0).to(next(model.parameters()).dtype))
    return spanning


def features_of(work: Workspace, gradient: Params, refusals: list[str]) -> Features | None:
    """Return what is known of the earliest convolution's input that anything is known of.

    Args:
        work: Of the weights sent.
        gradient: One example's, float64.
        refusals: Filled with why earlier convolutions say nothing.
    """
    model = loaded(doubled(still(work.auxiliary.model)), work.sent)
    names = dict.fromkeys(it.name for it in candidates(work.auxiliary))
    trained = [name for name in names if f"{name}.weight" in gradient]
    for windows in _windows(model, work.auxiliary, trained):
        try:
            basis = inputs_in_span(windows, gradient[f"{windows.name}.weight"])
        except NotApplicable as reason:
            refusals.append(str(reason))
            continue
        return Features(model, windows.name, basis)
    return None


def _windows(model: nn.Module, auxiliary: Auxiliary, names: Sequence[str]) -> list[Windows]:
    """Return the convolutions with the places that slopes reach, seen on random inputs."""
    inputs, outputs = dict[str, Tensor](), dict[str, Tensor]()

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            inputs[name], outputs[name] = given[0], out.requires_grad_()
            return out.clone()  # what follows may overwrite it

        return hook

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in names]
    slopes = dict[str, list[Tensor]]({name: [] for name in names})
    for probe in range(PROBES):
        with torch.enable_grad(), plain_attention():
            logits = model(_random(auxiliary, probe))
            label = torch.tensor([probe % auxiliary.num_classes])
            loss = functional.cross_entropy(logits, label)
            parts = torch.autograd.grad(
                loss, [outputs[name] for name in names], materialize_grads=True
            )
        for name, part in zip(names, parts, strict=True):
            slopes[name].append(part[0].flatten(1))
    for handle in handles:
        handle.remove()
    reached = []
    for name in names:
        rows = functional.normalize(torch.cat(slopes[name]), dim=1)
        _, sizes, right = torch.linalg.svd(rows, full_matrices=False)
        reach = right[sizes > REACHED * sizes[0].clamp(min=1e-30)].T
        if reach.shape[1] > 1:
            conv, (_, channels, height, width) = model.get_submodule(name), inputs[name].shape
            assert isinstance(conv, nn.Conv2d)
            reached.append(Windows(name, conv, (channels, height, width), reach))
    return reached


def _random(auxiliary: Auxiliary, place: int) -> Float[Tensor, "1 *shape"]:
    stream = derived(0, "reached places", place)
    return torch.rand(1, *input_shape(auxiliary), generator=stream, dtype=torch.float64)


def pictured(
    features: Features, start: Float[Tensor, "1 *shape"], *, iterations: int
) -> tuple[Float[Tensor, "1 *shape"], float]:
    """Return a picture whose features lie in their space, and their misfit, by L-BFGS.

    The weight of the total variation falls from stage to stage. The scale of the picture is a
    variable of its own in later stages: batch norm in training mode leaves no more of it than the
    small number that it adds to variances, which is enough for float32 gradients once it is
    descended along. From the start on it leads models in evaluation mode astray.
    """
    point = torch.cat([start.double().flatten(), torch.zeros(1, dtype=torch.float64)]).unsqueeze(0)
    picture_at = lambda v, rate: (v[:, :-1] * (rate * v[:, -1:]).exp()).view(start.shape)
    for stage in range(STAGES):
        weight, rate = SMOOTH * FALL**stage, SCALE * (stage >= STAGES // 2)

        def evaluate(
            points: Tensor, weight: float = weight, rate: float = rate
        ) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                v = points.detach().requires_grad_()
                picture = picture_at(v, rate)
                loss = features.misfit(picture) + weight * total_variation(picture.unsqueeze(0))[0]
                (slope,) = torch.autograd.grad(loss, v)
            return loss.detach().unsqueeze(0), slope

        steps = max(2, iterations // STAGES)
        point = lbfgs(evaluate, point, steps=steps, history=HISTORY).points
    picture = picture_at(point, SCALE)
    with torch.no_grad():
        return picture, float(features.misfit(picture))
