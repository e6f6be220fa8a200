"""What decides which reconstruction fits: a model and a protocol, looked at without any update.

The model is run once on random inputs, in training mode without dropout, as the attacks simulate
it: which functions it calls, how many floating-point operations a gradient takes, and whether the
gradient itself can be differentiated in the inputs.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from adversary.inversion.activations import ACTIVATIONS
from adversary.inversion.chain import chain, check_trained, drops_out, first_linear, follows
from adversary.inversion.features import candidates
from adversary.inversion.patches import embedding_of, pixels_of
from adversary.inversion.rows import still
from adversary.inversion.token_spans import Structure, structure_of
from adversary.labels.head import input_shape
from adversary.members.candidates import trained_names
from adversary.steps import steps_of
from fedsim.core.attention import plain_attention
from fedsim.core.boundary import PASSING, explained
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining

KINKED = ("relu", "hardtanh", "hardswish", "hardsigmoid", "threshold", "max_pool", "abs", "clamp")
PROBED = 2  # examples of the trial, at most
SECOND = 3.0  # gradients that a product with a second derivative takes


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model, how its clients train, and how many examples an update is of.

    Attributes:
        shape: Of one input.
        local: How clients train.
        count: Examples of the update.
        steps: Local steps that it sums.
        first: The linear layer with a bias that takes the inputs themselves; None without.
        after: The type of the module after it; empty without.
        positions: A trained position embedding that is added to patches that train, too; None
            without.
        structure: How the model takes pictures in patches apart; None where it does not.
        narrow: The first convolution whose gradient spans the windows of its input, if that has no
            fewer numbers than an example; None without.
        unwalkable: Why a recursion cannot walk back through the model; None if it can.
        mixing: The first layer that makes an example's gradient depend on more than the example
            (batch norm, dropout); None without.
        kink: A function of the model whose slope jumps; None where it is smooth.
        records: Whether inputs encode declared columns of a table.
        flat: Why the gradient has no derivative in the inputs; None if it has one.
        cost: Floating-point operations of one gradient of the examples.
    """

    shape: tuple[int, ...]
    local: LocalTraining
    count: int
    steps: int
    first: str | None
    after: str
    positions: str | None
    structure: Structure | None
    narrow: str | None
    unwalkable: str | None
    mixing: str | None
    kink: str | None
    records: bool
    flat: str | None
    cost: float

    @property
    def ordered(self) -> bool:
        """Whether it is known in which step every example was used."""
        return self.steps == 1 or self.count <= self.local.batch_size


def setting_of(auxiliary: Auxiliary, local: LocalTraining, count: int) -> Setting:
    """Return what decides which reconstruction fits.

    Args:
        auxiliary: The architecture.
        local: How clients train.
        count: Examples of an update, from 1.

    Raises:
        NotApplicable: The shape of an input is not known, or the model has no trained parameter.
    """
    model, shape = auxiliary.model, input_shape(auxiliary)
    if not trained_names(auxiliary):
        raise NotApplicable("model: must have a trained parameter, got none")
    first, after = _first(model, shape)
    positions, structure = _patched(auxiliary, shape)
    kinks, flat, cost = _trial(auxiliary, shape, min(count, PROBED))
    return Setting(
        shape=shape,
        local=local,
        count=count,
        steps=steps_of(local, count),
        first=first,
        after=after,
        positions=positions,
        structure=structure,
        narrow=_narrow(auxiliary, shape),
        unwalkable=_unwalkable(model, shape),
        mixing=_mixing(model),
        kink=min(kinks, default=None),
        records=auxiliary.schema is not None and auxiliary.schema.size == math.prod(shape),
        flat=flat,
        cost=cost * count / min(count, PROBED),
    )


def _narrow(auxiliary: Auxiliary, shape: tuple[int, ...]) -> str | None:
    if len(shape) != 3:
        return None
    try:
        spanning = candidates(auxiliary)
    except PASSING:
        raise
    except Exception:  # it does not run on one picture
        return None
    return spanning[0].name if spanning and spanning[0].numbers >= math.prod(shape) else None


def _first(model: nn.Module, shape: tuple[int, ...]) -> tuple[str | None, str]:
    try:
        name = first_linear(model, shape)
        return name, follows(model, name, shape)
    except PASSING:
        raise
    except Exception:  # it begins otherwise, or does not run on random inputs
        return None, ""


def _patched(auxiliary: Auxiliary, shape: tuple[int, ...]) -> tuple[str | None, Structure | None]:
    """Return the position embedding that is trained, and the layers that take tokens."""
    try:
        pixels_of(auxiliary.model, shape)
    except NotApplicable:
        return None, None
    return _positions(auxiliary, shape), _structure(auxiliary)


def _structure(auxiliary: Auxiliary) -> Structure | None:
    try:
        return structure_of(auxiliary)
    except NotApplicable:
        return None


def _positions(auxiliary: Auxiliary, shape: tuple[int, ...]) -> str | None:
    try:
        embedding = embedding_of(auxiliary.model, shape)
    except NotApplicable:
        return None
    trained = embedding.weight in trained_names(auxiliary) or embedding.readers
    return embedding.positions if trained else None


def _unwalkable(model: nn.Module, shape: tuple[int, ...]) -> str | None:
    try:
        layers = chain(model, shape)
        check_trained(model, layers)
    except PASSING:
        raise
    except Exception as error:
        return explained(error)
    if layers[-1].kind != "linear":
        return f"{layers[-1].name}: the last layer must be linear"
    for layer in (it for it in layers if it.kind == "activation"):
        kind = type(layer.module)
        if ACTIVATIONS[kind].inverse is None and kind is not nn.ReLU:
            return f"{layer.name} = {kind.__name__}: has no inverse"
    return None


def _mixing(model: nn.Module) -> str | None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or drops_out(module):
            return f"{name} = {type(module).__name__}"
    return None


class _Called(TorchDispatchMode):
    """Notes the functions with kinks that run, forwards."""

    def __init__(self) -> None:
        super().__init__()
        self.kinks: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.kinks |= {name.rstrip("_") for part in KINKED if part in name}
        return func(*args, **kwargs or {})


def _trial(
    auxiliary: Auxiliary, shape: tuple[int, ...], count: int
) -> tuple[set[str], str | None, float]:
    """Return the kinks, why there is no derivative, and the operations of a gradient."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    stream, called = generator(0, "setting"), _Called()
    flops = FlopCounterMode(display=False)
    model = still(auxiliary.model)
    weights = {n: p.detach().requires_grad_() for n, p in model.named_parameters()}
    names = trained_names(auxiliary)
    parameter = weights[names[0]]
    x = torch.rand(count, *shape, generator=stream).to(parameter.dtype).requires_grad_()
    try:
        with global_stream(0, "setting"), torch.enable_grad(), plain_attention():
            with called, flops:
                logits = functional_call(model, weights, (x,))
            with flops:
                labels = torch.zeros(count, dtype=torch.int64)
                gradients = torch.autograd.grad(
                    functional.cross_entropy(logits, labels),
                    [weights[name] for name in names],
                    create_graph=True,
                    materialize_grads=True,
                )
            flat = _flat(gradients, x, stream)
    except PASSING:
        raise
    except Exception as error:
        rule = f"a gradient of {count} random examples must be differentiable"
        flat = f"{rule}, got {explained(error)}"
    return called.kinks, flat, max(float(flops.get_total_flops()), 1.0)


def _flat(gradients: tuple[Tensor, ...], x: Tensor, stream: Generator) -> str | None:
    """Return why gradients have no derivative in the inputs, if they have none."""
    none = "the gradient has no derivative in the inputs"
    moving = [value for value in gradients if value.requires_grad]
    if not moving:
        return none
    drawn = [torch.randn(v.shape, generator=stream).to(v.dtype) for v in moving]
    (slope,) = torch.autograd.grad(moving, x, drawn, materialize_grads=True)
    return none if not bool(slope.any()) else None
