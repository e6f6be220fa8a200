"""Why a reconstruction will be hard, from the architecture and the protocol alone."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from adversary.inversion.activations import ACTIVATIONS, saturated
from adversary.inversion.chain import drops_out
from adversary.inversion.precision import errors, gradients, signal_to_noise
from fedsim.core.doubled import doubled
from fedsim.core.local_training import TITLES
from fedsim.core.types import LocalTraining

Shape = tuple[int, ...]
POOLS = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
)
FAINT = 100.0  # dB
MANY = 0.1  # share of saturated outputs


@dataclass(frozen=True)
class Obstacle:
    """One reason; as text, all of it.

    Attributes:
        name: What stands in the way, in two or three words.
        value: How much of it, in words.
        sentence: What it does to a reconstruction.
    """

    name: str
    value: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.name} ({self.value}): {self.sentence}"


def obstacles(
    model: nn.Module, shape: Shape, local: LocalTraining, num_examples: int, at: Tensor
) -> list[Obstacle]:
    """Return what stands between an update and its client's examples, the heaviest first.

    Args:
        model: With the weights sent; left as it is.
        shape: Of one input.
        local: How clients train.
        num_examples: A client's.
        at: An input on which saturation and precision are measured, shape (*shape).
    """
    return [
        *optimizer_obstacles(local),
        *_numbers(model, shape, local, num_examples),
        *_steps(local, num_examples),
        *_batch(local, num_examples),
        *_modes(model),
        *_pooling(model),
        *_activations(model, at),
        *_precision(model, local, at),
    ]


def optimizer_obstacles(local: LocalTraining) -> Iterator[Obstacle]:
    """Yield that an update is no sum of gradients, where it is none."""
    if not local.sums_gradients:
        yield Obstacle(
            TITLES[local.optimizer],
            f"steps of lr {local.lr:g}",
            "each entry of a step is divided by its own size: the update is no sum of gradients, "
            "which attacks read it as",
        )


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count > 1)}"


def _used(local: LocalTraining, num_examples: int) -> int:
    """Return how many examples are in the update."""
    return min(local.batch_size, num_examples) if local.upload == "gradient" else num_examples


def _numbers(
    model: nn.Module, shape: Shape, local: LocalTraining, num_examples: int
) -> Iterator[Obstacle]:
    weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    numbers = prod(shape) * _used(local, num_examples)
    if numbers > weights:
        yield Obstacle(
            "more data than weights",
            f"{numbers / max(weights, 1):.3g} × as many",
            f"{numbers} unknown numbers stand against {weights} of the update: it cannot hold "
            "them all without a prior",
        )


def _steps(local: LocalTraining, num_examples: int) -> Iterator[Obstacle]:
    steps = local.epochs * -(-num_examples // local.batch_size)
    if local.upload == "weights" and steps > 1:
        yield Obstacle(
            "several local steps",
            f"{steps} steps of lr {local.lr:g}",
            f"the update sums {steps} gradients at weights that the server does not see: no linear "
            "system holds exactly, the attacker must simulate the client's training",
        )


def _batch(local: LocalTraining, num_examples: int) -> Iterator[Obstacle]:
    size = min(local.batch_size, num_examples)
    if size > 1:
        yield Obstacle(
            "several examples",
            f"{size} per step",
            f"each gradient is the mean over {size} examples: systems layer by layer hold for one "
            "example; exact recovery is left where an example is alone on a unit, or behind a wide "
            "linear first layer with ReLU (SPEAR: 32 examples on 200 units; SPEAR++: 128 on 2,000)",
        )


def _modes(model: nn.Module) -> Iterator[Obstacle]:
    named = list(model.named_modules())
    norms = [it for it in named if isinstance(it[1], nn.modules.batchnorm._BatchNorm)]
    if norms:
        name, module = norms[0]
        yield Obstacle(
            "batch norm in training",
            f"{_layers(len(norms))}, first {name} = {type(module).__name__}",
            "examples of a batch depend on one another through statistics that the server does "
            "not see; most published figures avoid this by evaluation mode",
        )
    drops = [it for it in named if drops_out(it[1])]
    if drops:
        name, module = drops[0]
        yield Obstacle(
            "dropout in training",
            f"{_layers(len(drops))}, first {name} = {type(module).__name__}",
            "the masks are secret: an attacker matches the gradient of another network",
        )


def _pooling(model: nn.Module) -> Iterator[Obstacle]:
    pools = [(n, m) for n, m in model.named_modules() if isinstance(m, POOLS)]
    if pools:
        name, module = pools[0]
        yield Obstacle(
            "pooling",
            f"{_layers(len(pools))}, first {name} = {type(module).__name__}",
            "of each window one number goes on: recursion stops there, and what the gradient of "
            "the layers before does not tell stays hidden",
        )


def _activations(model: nn.Module, at: Tensor) -> Iterator[Obstacle]:
    outputs: dict[str, list[tuple[nn.Module, Tensor]]] = {}
    handles = []
    copied = copy.deepcopy(model).eval()
    for module in copied.modules():
        if type(module) in ACTIVATIONS:

            def keep(of: nn.Module, _: tuple, out: Tensor) -> None:
                outputs.setdefault(type(of).__name__, []).append((of, out.clone()))

            handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        parameter = next(copied.parameters(), at)
        copied(at.to(parameter.dtype).unsqueeze(0))
    for name, calls in outputs.items():
        kind = ACTIVATIONS[type(calls[0][0])]
        if kind.inverse is None:
            zero = sum(int((out == 0).sum()) for _, out in calls)
            total = sum(out.numel() for _, out in calls)
            value = f"{zero / total:.0%} of outputs are 0" if zero else "not monotone"
            yield Obstacle(
                f"{name} has no inverse",
                value,
                "several inputs give the same output, so that recursion stops there",
            )
        elif (share := max(saturated(module, out) for module, out in calls)) > MANY:
            yield Obstacle(
                f"saturated {name}",
                f"{share:.0%} of a layer's outputs",
                "float32 does not tell the inputs of saturated outputs, and hardly any gradient "
                "comes through them",
            )
        if kind.kinked:
            yield Obstacle(
                f"{name} has kinks",
                _layers(len(calls)),
                "the gradient jumps where units switch: solvers that start far away may stick",
            )


def _precision(model: nn.Module, local: LocalTraining, at: Tensor) -> Iterator[Obstacle]:
    if local.upload != "weights":
        return
    still = copy.deepcopy(model).eval()
    gradient = gradients(doubled(still), at.double(), 0)
    ratio = signal_to_noise(errors(still, at, 0, upload="weights", lr=local.lr), gradient)
    if ratio < FAINT:
        yield Obstacle(
            "rounded weights",
            f"{ratio:.0f} dB above rounding",
            f"float32 weights at lr {local.lr:g} carry no more of the gradient; recursion through "
            "the LeNet of the gradient papers costs 80 dB of it",
        )
