"""Cosine membership inference: a client's own examples point where its update goes.

J. Li, N. Li, B. Ribeiro, "Effective passive membership inference attacks in federated learning
against overparameterized models", ICLR 2023, the cosine attack.

Idea: an upload is a sum of gradients of the client's examples. In a model with many parameters the
gradients of different examples are nearly orthogonal, so that the cosine of the upload and the
gradient of one record is larger where the record is one of them.

*Server must know*: the weights sent, the update, the loss, and the candidate records themselves.
*Exact when*: the candidate is the only example of one gradient (cosine 1), or gradients are
orthogonal; a heuristic otherwise.
*Differs from the paper*: its code is not at hand. One round is judged by itself, without averaging
over rounds. Gradients are taken in evaluation mode, where no candidate depends on another: batch
normalisation uses the running statistics sent, and nothing is dropped out; clients train in
training mode.
"""

import copy
import warnings

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional

from adversary.memo import once
from fedsim.params import norm, not_finite
from fedsim.types import Auxiliary, Params, View

CHUNK = 100  # candidates that go through the model together


def cosine_mia(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " m"]:
    """Return the cosine of the client's descent direction and each candidate's, in [−1, 1].

    0 where the update or a candidate's gradient is zero.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With candidates.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The update is not finite.
    """
    latest = view.latest
    names = [name for name, value in auxiliary.model.named_parameters() if value.requires_grad]
    update = {name: latest.update.delta[name] for name in names}
    if reason := not_finite(update):
        raise ValueError(f"update: {reason}")
    length, smoothing = float(norm(update)), latest.local.label_smoothing
    norms = gradient_norms(auxiliary, latest.sent, smoothing=smoothing)
    if length == 0:
        return torch.zeros_like(norms)
    descent = -length if latest.local.upload == "weights" else length  # weights go downhill
    direction = {name: value / descent for name, value in update.items()}
    along = slopes(auxiliary, latest.sent, direction, smoothing=smoothing)
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
    model, (inputs, labels) = _loaded(auxiliary, sent), _asked(auxiliary)
    found = []
    with torch.no_grad(), forward_ad.dual_level(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of torch.jit, the first time
        dual = {
            name: forward_ad.make_dual(value, direction[name].to(value.dtype))
            for name, value in model.named_parameters()
            if name in direction
        }
        for x, y in zip(inputs.split(CHUNK), labels.split(CHUNK), strict=True):
            losses = functional.cross_entropy(
                functional_call(model, dual, (x,)), y, reduction="none", label_smoothing=smoothing
            )
            found.append(forward_ad.unpack_dual(losses).tangent)
    return torch.cat(found).double()


@once(size=2)
def gradient_norms(auxiliary: Auxiliary, sent: Params, *, smoothing: float) -> Float[Tensor, " m"]:
    """Return ‖∇ℓ(z)‖ for every candidate z, once for all clients of the round.

    One by one: `torch.func.vmap` imports a compiler that costs every process 3 CPU-seconds, and on
    a CPU is slower for large models.
    """
    model, (inputs, labels) = _loaded(auxiliary, sent), _asked(auxiliary)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    norms = []
    for x, y in zip(inputs.split(1), labels.split(1), strict=True):
        loss = functional.cross_entropy(model(x), y, label_smoothing=smoothing)
        # Some parameters play no part in evaluation: a bottleneck's variance.
        gradients = torch.autograd.grad(loss, list(trained.values()), materialize_grads=True)
        norms.append(norm(dict(zip(trained, gradients, strict=True))))
    return torch.stack(norms)


@once(size=2)
def _loaded(auxiliary: Auxiliary, sent: Params) -> nn.Module:
    """Return a copy of the model with the weights sent, in evaluation mode."""
    model = copy.deepcopy(auxiliary.model).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(sent[name])
    return model


@once(size=2)
def _asked(auxiliary: Auxiliary) -> tuple[Tensor, Tensor]:
    """Return inputs, in the model's precision, and labels of the candidates."""
    asked = auxiliary.candidates
    assert asked is not None
    return asked.inputs.to(next(auxiliary.model.parameters()).dtype), asked.labels
