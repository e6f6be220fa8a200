"""What the model sent says of candidate records: losses, gradients, slopes along a direction.

Gradients are taken in evaluation mode, where no record depends on another: batch normalisation uses
the running statistics sent, and nothing is dropped out; clients train in training mode.
"""

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional

from adversary.memo import once
from adversary.steps import mean_weight, num_steps
from fedsim.core.params import norm, not_finite
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates, Observation, Params

CHUNK = 100  # candidates that go through the model together
KNOWN = 1000  # auxiliary records that are asked about


def trained_names(auxiliary: Auxiliary) -> list[str]:
    """Return the names of the parameters that clients train."""
    return [name for name, value in auxiliary.model.named_parameters() if value.requires_grad]


def uphill(observation: Observation, auxiliary: Auxiliary) -> tuple[dict[str, Tensor], float]:
    """Return the unit vector along which the client's losses rise, and the update's length.

    Zeros where the length is 0.

    Raises:
        ValueError: The update is not finite.
    """
    update = {name: observation.update.delta[name] for name in trained_names(auxiliary)}
    if reason := not_finite(update):
        raise ValueError(f"update: {reason}")
    length = float(norm(update))
    if length == 0:
        return update, 0.0
    sign = -1 if observation.local.upload == "weights" else 1  # weights go downhill
    return {name: value / (sign * length) for name, value in update.items()}, length


def to_mean_gradient(observation: Observation) -> float:
    """Return what an update's length is multiplied by, to be that of its steps' mean gradient.

    Raises:
        ValueError: Uploaded weights of a client that told no number of examples.
    """
    local, clients = observation.local, observation.update.num_clients
    if local.upload == "gradient":
        return 1 / clients
    steps = num_steps(observation)
    return 1 / (local.lr * mean_weight(local, steps // clients) * steps)


def cosines(observation: Observation, auxiliary: Auxiliary) -> Float[Tensor, " m"]:
    """Return the cosine of the client's descent direction and each candidate's, in [−1, 1].

    0 where the update or a candidate's gradient is zero.

    Raises:
        ValueError: The update is not finite.
    """
    direction, length = uphill(observation, auxiliary)
    smoothing = observation.local.label_smoothing
    norms = gradient_norms(auxiliary, observation.sent, smoothing=smoothing)
    if length == 0:
        return torch.zeros_like(norms)
    along = slopes(auxiliary, observation.sent, direction, smoothing=smoothing)
    return torch.where(norms > 0, along / norms, 0.0)


def slopes(
    auxiliary: Auxiliary, sent: Params, direction: Params, *, smoothing: float
) -> Float[Tensor, " m"]:
    """Return ⟨direction, ∇ℓ(z)⟩ for every candidate z, by forward differentiation of all losses.

    Args:
        auxiliary: With candidates.
        sent: Where the gradients are taken.
        direction: A tensor for each trainable parameter.
        smoothing: Label smoothing of ℓ.
    """
    model = _loaded(auxiliary, sent)
    with torch.no_grad(), forward_ad.dual_level(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of torch.jit, the first time
        dual = {
            name: forward_ad.make_dual(value, direction[name].to(value.dtype))
            for name, value in model.named_parameters()
            if name in direction
        }
        parts = _losses(auxiliary, model, dual, smoothing)
        found = [forward_ad.unpack_dual(part).tangent for part in parts]
    return torch.cat(found).double()  # type: ignore[arg-type]


def losses(auxiliary: Auxiliary, state: Params, *, smoothing: float) -> Float[Tensor, " m"]:
    """Return the loss of every candidate under a model in `state`, all parameters and buffers."""
    model = _loaded(auxiliary, state)
    with torch.no_grad():
        return torch.cat(list(_losses(auxiliary, model, {}, smoothing))).double()


@once(size=8)
def gradient_norms(auxiliary: Auxiliary, sent: Params, *, smoothing: float) -> Float[Tensor, " m"]:
    """Return ‖∇ℓ(z)‖ for every candidate z, once for all clients of the round."""
    found = gradients(auxiliary, sent, smoothing=smoothing)
    return torch.stack([norm(gradient) for gradient in found])


def gradients(
    auxiliary: Auxiliary, sent: Params, *, smoothing: float
) -> Iterator[dict[str, Tensor]]:
    """Yield ∇ℓ(z) for every candidate z.

    One by one: `torch.func.vmap` imports a compiler that costs every process 3 CPU-seconds, and on
    a CPU is slower for large models.
    """
    model, (inputs, labels) = _loaded(auxiliary, sent), _asked(auxiliary)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for x, y in zip(inputs.split(1), labels.split(1), strict=True):
        loss = functional.cross_entropy(model(x), y, label_smoothing=smoothing)
        # Some parameters play no part in evaluation: a bottleneck's variance.
        found = torch.autograd.grad(loss, list(trained.values()), materialize_grads=True)
        yield dict(zip(trained, found, strict=True))


@once()
def asking_of_auxiliary(auxiliary: Auxiliary) -> Auxiliary:
    """Return an adversary that asks about its own auxiliary records, which nobody trained on."""
    inputs, labels = auxiliary.inputs, auxiliary.labels
    assert inputs is not None
    assert labels is not None
    rows = torch.randperm(len(labels), generator=generator(0, "known"))[:KNOWN]
    return replace(auxiliary, candidates=Candidates(inputs[rows], labels[rows]))


def _losses(
    auxiliary: Auxiliary, model: nn.Module, values: Params, smoothing: float
) -> Iterator[Tensor]:
    """Yield the losses of candidates, with some of the model's parameters replaced by `values`."""
    inputs, labels = _asked(auxiliary)
    for x, y in zip(inputs.split(CHUNK), labels.split(CHUNK), strict=True):
        logits = functional_call(model, dict(values), (x,))
        yield functional.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)


@once()
def _loaded(auxiliary: Auxiliary, sent: Params) -> nn.Module:
    """Return a copy of the model with the weights sent, in evaluation mode."""
    model = copy.deepcopy(auxiliary.model).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(sent[name])
    return model


def _asked(auxiliary: Auxiliary) -> tuple[Tensor, Tensor]:
    """Return inputs, in the model's precision, and labels of the candidates."""
    asked = auxiliary.candidates
    assert asked is not None
    return asked.inputs.to(next(auxiliary.model.parameters()).dtype), asked.labels
