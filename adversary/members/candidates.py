"""What the model sent says of candidate records: losses, gradients, slopes along a direction.

Gradients are taken in evaluation mode, where no record depends on another: batch normalisation uses
the running statistics sent, and nothing is dropped out; clients train in training mode. Who knows
of a defense inside training takes them through it instead (`in_training`).
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

from adversary.labels.reading import check_finite
from adversary.members import in_training
from adversary.steps import mean_weight, num_steps, trained_state
from adversary.workspace import Workspace, as_inputs, loaded
from fedsim.core import sgd
from fedsim.core.attention import plain_attention
from fedsim.core.params import norm, not_finite
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates, Observation, Params

CHUNK = 100  # candidates that go through the model together
QUERIES = 1000  # auxiliary records that are asked about


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


def cosines(observation: Observation, work: Workspace) -> Float[Tensor, " m"]:
    """Return the cosine of the client's descent direction and each candidate's, in [−1, 1].

    0 where the update or a candidate's gradient is zero.

    Raises:
        ValueError: The update is not finite.
    """
    direction, length = uphill(observation, work.auxiliary)
    norms = work.part(gradient_norms)
    if length == 0:
        return torch.zeros_like(norms)
    return torch.where(norms > 0, slopes(work, direction) / norms, 0.0)


def slopes(work: Workspace, direction: Params) -> Float[Tensor, " m"]:
    """Return ⟨direction, ∇ℓ(z)⟩ for every candidate z, by forward differentiation of all losses.

    Args:
        work: With candidates; gradients are taken at the weights sent, and through a defense inside
            training that the adversary knows of.
        direction: A tensor for each trainable parameter.
    """
    if in_training.takes_part(work.auxiliary):
        return work.part(in_training.rows, keep=3).along(direction)
    try:
        return _slopes(work, direction)
    except NotImplementedError:  # mkldnn's LSTM is not differentiated forwards
        pass
    except RuntimeError:  # nor a user's own function without a rule for it
        return _slopes_backwards(work, direction)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of other processors
            with torch.backends.mkldnn.flags(enabled=False):
                return _slopes(work, direction)
    except (NotImplementedError, RuntimeError):  # such as weight norm's own kernel
        return _slopes_backwards(work, direction)


def _slopes_backwards(work: Workspace, direction: Params) -> Tensor:
    """Return the same from each candidate's gradient: slower, and of any model that trains."""
    along = lambda it: sum((it[n].double() * v).sum() for n, v in direction.items() if n in it)
    return torch.stack([torch.as_tensor(along(gradient)) for gradient in gradients(work)])


def _slopes(work: Workspace, direction: Params) -> Tensor:
    model = work.part(_sent_model, keep=4)
    with torch.no_grad(), plain_attention(), forward_ad.dual_level(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of torch.jit, the first time
        dual = {
            name: forward_ad.make_dual(value, direction[name].to(value.dtype))
            for name, value in model.named_parameters()
            if name in direction
        }
        parts = _losses(work.auxiliary, model, dual, work.local.label_smoothing)
        slopes = [(part, forward_ad.unpack_dual(part).tangent) for part in parts]
        # A loss that no parameter moves has no tangent.
        tangents = [torch.zeros_like(part) if t is None else t for part, t in slopes]
    return torch.cat(tangents).double()  # type: ignore[arg-type]


def losses(auxiliary: Auxiliary, state: Params, *, smoothing: float) -> Float[Tensor, " m"]:
    """Return the loss of every candidate under a model in `state`, all parameters and buffers."""
    model = _evaluated(auxiliary, state)
    with torch.no_grad():
        return torch.cat(list(_losses(auxiliary, model, {}, smoothing))).double()


def losses_before(work: Workspace) -> Float[Tensor, " m"]:
    """Return the loss of every candidate under the model sent: a part of the workspace."""
    return losses(work.auxiliary, work.sent, smoothing=work.local.label_smoothing)


def losses_after(
    observation: Observation, auxiliary: Auxiliary, *, smoothing: float
) -> Float[Tensor, " m"]:
    """Return the loss of every candidate under a client's local model.

    An uploaded gradient is followed by one step of the protocol's length. For a sum over several
    clients, the model is their mean.

    Raises:
        ValueError: The local model computes what is not finite.
    """
    loss = losses(auxiliary, trained_state(observation), smoothing=smoothing)
    check_finite(loss.sum())
    return loss


def gradient_norms(work: Workspace) -> Float[Tensor, " m"]:
    """Return ‖∇ℓ(z)‖ for every candidate z, as for `slopes`: a part of the workspace."""
    if in_training.takes_part(work.auxiliary):
        return work.part(in_training.rows, keep=3).values.double().norm(dim=1)
    return torch.stack([norm(gradient) for gradient in gradients(work)])


def gradients(work: Workspace) -> Iterator[Params]:
    """Yield ∇ℓ(z) for every candidate z, as for `slopes`.

    One by one: `torch.func.vmap` imports a compiler that costs every process 3 CPU-seconds, and on
    a CPU is slower for large models.
    """
    if in_training.takes_part(work.auxiliary):
        yield from in_training.parts(work)
        return
    model, (inputs, labels) = work.part(_sent_model, keep=4), _records(work.auxiliary)
    smoothing = work.local.label_smoothing
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for x, y in zip(inputs.split(1), labels.split(1), strict=True):
        loss = functional.cross_entropy(model(x), y, label_smoothing=smoothing)
        # Some parameters play no part in evaluation: a bottleneck's variance.
        yield dict(zip(trained, sgd.gradients(loss, trained), strict=True))


def asking_of_auxiliary(auxiliary: Auxiliary) -> Auxiliary:
    """Let the adversary ask about its own auxiliary records, which nobody trained on."""
    inputs, labels = auxiliary.inputs, auxiliary.labels
    assert inputs is not None
    assert labels is not None
    rows = torch.randperm(len(labels), generator=generator(0, "known"))[:QUERIES]
    return replace(auxiliary, candidates=Candidates(inputs[rows], labels[rows]))


def _losses(
    auxiliary: Auxiliary, model: nn.Module, values: Params, smoothing: float
) -> Iterator[Tensor]:
    """Yield the losses of candidates, with some of the model's parameters replaced by `values`."""
    inputs, labels = _records(auxiliary)
    for x, y in zip(inputs.split(CHUNK), labels.split(CHUNK), strict=True):
        logits = functional_call(model, dict(values), (x,))
        yield sgd.example_losses(logits, y, label_smoothing=smoothing)


def _sent_model(work: Workspace) -> nn.Module:
    return _evaluated(work.auxiliary, work.sent)


def _evaluated(auxiliary: Auxiliary, state: Params) -> nn.Module:
    """Return a copy of the model in `state`, in evaluation mode."""
    return loaded(copy.deepcopy(auxiliary.model).eval(), state)


def _records(auxiliary: Auxiliary) -> tuple[Tensor, Tensor]:
    """Return inputs, in the model's precision, and labels of the candidates."""
    candidates = auxiliary.candidates
    assert candidates is not None
    return as_inputs(candidates.inputs, auxiliary.model), candidates.labels
