"""The linear classification head, where labels leak: found in the model, read from an update."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Num
from torch import Generator, Tensor, nn

from adversary.labels.linear_calls import run
from adversary.placement import at_model
from adversary.steps import num_labels, num_steps, to_sum
from adversary.workspace import Workspace, as_inputs, loaded, randomise, working_copy
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Observation, Params


@dataclass(frozen=True)
class Head:
    """Names of the last linear layer's parameters; `bias` is None where none is trained.

    Attributes:
        tied: Whether the model uses the weight elsewhere too, as an embedding or a decoder.
        binary: Whether the layer has one output z, and the model gives the logits (0, z).
    """

    weight: str
    bias: str | None
    tied: bool = False
    binary: bool = False

    def rows(self, tensors: Params) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias out of weights sent, with a row per class: (0, w) if binary."""
        weight, bias = tensors[self.weight], None if self.bias is None else tensors[self.bias]
        if not self.binary:
            return weight, bias
        both = None if bias is None else torch.cat([torch.zeros_like(bias), bias])
        return torch.cat([torch.zeros_like(weight), weight]), both

    def slopes(self, tensors: Params) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias out of an update, or out of a stack of updates; a row per class.

        A binary head's one row is Σ (p₁ − y)·[hᵀ, 1], and p₀ − (1 − y) is its negative.
        """
        weight, bias = tensors[self.weight], None if self.bias is None else tensors[self.bias]
        if not self.binary:
            return weight, bias
        both = None if bias is None else torch.cat([-bias, bias], dim=-1)
        return torch.cat([-weight, weight], dim=-2), both


class HeadAlone(nn.Module):
    """Stands for a model of which only the head's arrays are given: it cannot be run.

    Args:
        weight: Shape (classes, features).
        bias: Shape (classes,); None for a head without.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:  # noqa: ARG002
        """Refuse to run.

        Raises:
            NeedsModel: Always.
        """
        raise NeedsModel("must be given to this attack, which runs it; got the head alone")


class NoHead(NotApplicable):
    """There is no linear head's gradient to read."""


class NeedsModel(NotApplicable):
    """An attack runs the model, of which only the head is given."""


@dataclass(frozen=True)
class HeadGradient:
    """What an update says of the head, as if all labels had been one batch of summed losses.

    For a label y with probabilities p and features h, one label's share is (p − e_y)·[hᵀ, 1].

    Attributes:
        observed: The head's weight as it stands in the update.
        observed_bias: Its bias; None for a head without.
        scale: From the update to the sum over all labels: labels per step, and for uploaded
            weights −1/lr and how much momentum and FedProx make a step weigh.
        total: How many labels there are, one per use of an example.
        steps: How many batch gradients were summed.
    """

    observed: Float[Tensor, "classes features"]
    observed_bias: Float[Tensor, " classes"] | None
    scale: float
    total: int
    steps: int

    @cached_property
    def weight(self) -> Float[Tensor, "classes features"]:
        """Sum over labels of (p − e_y)·hᵀ, float64."""
        return self.observed.double() * self.scale

    @cached_property
    def bias(self) -> Float[Tensor, " classes"] | None:
        """Sum over labels of p − e_y, float64."""
        return None if self.observed_bias is None else self.observed_bias.double() * self.scale

    @cached_property
    def row_sums(self) -> Float[Tensor, " classes"]:
        """Sum over labels of (p − e_y)·Σ_d h_d, float64: the `g` of the LLG paper."""
        return self.observed.sum(dim=1, dtype=torch.float64) * self.scale


def find_head(work: Workspace) -> Head:
    """Return the linear layer whose output the model gives as logits, whatever its name or place.

    The model is run once, on random weights and inputs; log-softmax after the layer is allowed.

    Raises:
        ValueError: The logits do not come from a linear layer, or the input's shape is not known.
    """
    return work.lasting(_trace)


def read_head(observation: Observation, work: Workspace) -> HeadGradient:
    """Read the head's part of an update, and nothing else of it.

    Raises:
        ValueError: There is no linear head, no number of examples, or the update is not finite.
    """
    head, delta = find_head(work), observation.update.delta
    if not _is_uploaded(head, delta):
        raise NoHead("update: must hold the head's gradient, got none")
    weight, bias = head.slopes(delta)
    still = not bool(weight.any()) and (bias is None or not bool(bias.any()))
    if still and any(bool(delta[name].any()) for name in delta):
        raise NoHead("update: must move the head, got zeros in the head alone")
    # A sum is not finite where an entry is not; it may overflow only far beyond any gradient.
    if not torch.isfinite(weight.sum() + (0 if bias is None else bias.sum())):
        raise ValueError("update: the head's gradient must be finite, got NaN or infinity")
    total, steps = num_labels(observation), num_steps(observation)
    return HeadGradient(weight, bias, to_sum(observation), total, steps)


def has_head(observation: Observation, work: Workspace) -> bool:
    """Return whether an update holds a linear head's gradient, and nothing else in its place.

    Not where the head's weight is also another layer's, where no head was trained, or where it is
    binary, so that no sum over classes shows the noise.
    """
    try:
        head = find_head(work)
    except NoHead:
        return False
    return not (head.tied or head.binary) and _is_uploaded(head, observation.update.delta)


def own_head(observation: Observation, work: Workspace) -> HeadGradient | None:
    """Return the head's gradient; None where `has_head` denies it, or others alone were moved.

    Raises:
        ValueError: As `read_head`.
    """
    try:
        return read_head(observation, work) if has_head(observation, work) else None
    except NoHead:
        return None


def _is_uploaded(head: Head, delta: Params) -> bool:
    names = set(delta)  # to ask a mapping for a name may read the tensor
    return head.weight in names and (head.bias is None or head.bias in names)


@dataclass(frozen=True)
class Forward:
    """What a model computes on some inputs: the head's inputs and outputs.

    Attributes:
        features: h, the head's input.
        logits: z = W h + b.
    """

    features: Float[Tensor, "n features"]
    logits: Float[Tensor, "n classes"]

    @cached_property
    def probabilities(self) -> Float[Tensor, "n classes"]:
        """Softmax of the logits, float64."""
        return self.logits.double().softmax(dim=1)

    @cached_property
    def sums(self) -> Float[Tensor, " n"]:
        """Σ_d h_d, float64: the `O` of the LLG paper."""
        return self.features.sum(dim=1, dtype=torch.float64)


@at_model
def forward(work: Workspace, state: Params, inputs: Tensor, batch_size: int = 500) -> Forward:
    """Run the model in `state` on inputs, in training mode as clients do.

    Args:
        work: The architecture; its own weights are left alone.
        state: All parameters and buffers.
        inputs: Examples, shape (n, *input_shape).
        batch_size: Matters to models with batch statistics only; a client's own is best there.
            One more where an example were left alone, which has no statistics; a single input
            stands twice.
    """
    model = loaded(work.lasting(working_copy), state)
    inputs, count = as_inputs(inputs, model), len(inputs)
    if count % batch_size == 1 and _has_batch_norm(model):  # whose variance needs two examples
        inputs = inputs.expand(2, *inputs.shape[1:]) if count == 1 else inputs
        batch_size += 1
    with global_stream(0, "forward"):  # dropout draws the same mask every time
        parts = [run(model, batch)[:2] for batch in inputs.split(batch_size)]
    return Forward(*(torch.cat(values)[:count] for values in zip(*parts, strict=True)))


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(it, nn.modules.batchnorm._BatchNorm) for it in model.modules())


def auxiliary_forward(work: Workspace) -> Forward:
    """Return what the model sent computes on the auxiliary inputs: a part of the workspace."""
    assert work.auxiliary.inputs is not None
    return forward(work, work.sent, work.auxiliary.inputs)


def noise_forward(work: Workspace) -> Forward:
    """Return what the model sent computes on noise: a part of the workspace."""
    return forward(work, work.sent, work.lasting(noise_inputs))


def noise_inputs(auxiliary: Auxiliary) -> Num[Tensor, "500 *shape"]:
    """Return 500 inputs of uniform noise: numbers in [0, 1], or tokens."""
    return _random_inputs(auxiliary, 500, generator(0, "noise inputs"))


def _random_inputs(auxiliary: Auxiliary, count: int, stream: Generator) -> Num[Tensor, "_ *shape"]:
    shape, vocabulary = (count, *input_shape(auxiliary)), auxiliary.vocabulary
    if vocabulary is None:
        return torch.rand(*shape, generator=stream)
    return torch.randint(vocabulary.pad + 1, len(vocabulary), shape, generator=stream)


def input_shape(auxiliary: Auxiliary) -> tuple[int, ...]:
    """Return the shape of one example.

    Raises:
        ValueError: Neither the shape nor an example is known.
    """
    if auxiliary.input_shape is not None:
        return auxiliary.input_shape
    if auxiliary.inputs is None:
        raise NotApplicable(
            "auxiliary.input_shape: must be given where there are no inputs, got none"
        )
    return tuple(auxiliary.inputs.shape[1:])


def _trace(auxiliary: Auxiliary) -> Head:
    """Find the head by running the model."""
    if isinstance(alone := auxiliary.model, HeadAlone):
        return Head("weight", None if alone.bias is None else "bias")
    model = working_copy(auxiliary)
    stream = generator(0, "trace")
    randomise(model, stream)
    inputs = as_inputs(_random_inputs(auxiliary, 2, stream), model)
    with global_stream(0, "trace"):
        _, logits, layer = run(model, inputs)
    classes = auxiliary.num_classes
    if layer is None or logits.shape != (2, classes):
        raise NoHead(
            f"model: must end in a linear layer of {classes} outputs that are its logits, got none"
        )
    names = {id(value): name for name, value in model.named_parameters()}
    weight, bias = (names.get(id(value)) for value in (layer.weight, layer.bias))
    if weight is None:
        raise NoHead("model: the last layer's weight must be a parameter, got a computed one")
    if not layer.weight.requires_grad:
        raise NoHead("model: the last layer must be trained, got a frozen one")
    frozen = layer.bias is not None and not layer.bias.requires_grad
    return Head(weight, None if frozen else bias, layer.tied, layer.binary)
