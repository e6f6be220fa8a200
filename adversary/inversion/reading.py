"""What an update says of the batch it came from: its gradient and its size."""

from torch import Tensor, nn

from adversary.inversion.chain import drops_out
from adversary.members.candidates import trained_names
from adversary.steps import mean_weight, num_steps
from adversary.workspace import Workspace
from fedsim.core.doubled import doubled
from fedsim.core.errors import NotApplicable
from fedsim.core.params import not_finite
from fedsim.core.types import Auxiliary, Observation, Params


def batch_size(observation: Observation) -> int:
    """Return how many examples the client has, or its batch where it uploads a gradient.

    Raises:
        ValueError: It told none or less than 1, or the update is a sum over clients.
    """
    count = observation.update.num_examples
    if count is None:
        raise NotApplicable("num_examples: must be told by the client, got none")
    if observation.update.num_clients > 1:
        raise NotApplicable(
            f"num_clients: must be 1 to reconstruct examples, got {observation.update.num_clients}"
        )
    if count < 1:
        raise NotApplicable(f"num_examples: must be at least 1, got {count}")
    return count


def mean_gradient(observation: Observation, auxiliary: Auxiliary) -> dict[str, Tensor]:
    """Return the mean over local steps of the batch gradient, float64.

    Of an uploaded gradient, or of weights after one step, it is the gradient at the weights sent.

    Raises:
        ValueError: The update is not finite or lacks a trained parameter.
    """
    names = trained_names(auxiliary)
    if missing := [name for name in names if name not in observation.update.delta]:
        raise NotApplicable(f"{missing[0]}: must be in the update")
    delta = {name: observation.update.delta[name] for name in names}
    if reason := not_finite(delta):
        raise ValueError(f"update: {reason}")
    local = observation.local
    if local.upload == "gradient":
        return {name: value.double() for name, value in delta.items()}
    steps = num_steps(observation)
    scale = -1 / (local.lr * mean_weight(local, steps) * steps)
    return {name: value.double() * scale for name, value in delta.items()}


def batch_gradient(observation: Observation, auxiliary: Auxiliary) -> dict[str, Tensor]:
    """Return the gradient of the client's batch at the weights sent, float64.

    Raises:
        ValueError: The client took several steps, or as `mean_gradient`.
    """
    steps = num_steps(observation)
    if observation.local.upload == "weights" and steps > 1:
        raise NotApplicable(
            f"local: must be one step for this attack, got {steps}; joint and "
            "inverting-gradients simulate several"
        )
    return mean_gradient(observation, auxiliary)


def precise(work: Workspace) -> nn.Module:
    """Return a copy of the model with the weights sent, float64, for gradients of examples.

    Raises:
        ValueError: A layer's output depends on more than its example.
    """
    for name, module in work.auxiliary.model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or drops_out(module):
            what = f"{name} = {type(module).__name__}"
            raise NotApplicable(
                f"{what}: an example's gradient depends on what the server cannot see"
            )
    return work.part(_precise, keep=4)


def _precise(work: Workspace) -> nn.Module:
    model = doubled(work.auxiliary.model)
    model.load_state_dict({name: work.sent[name] for name in model.state_dict()})
    return model.eval().requires_grad_(requires_grad=False)


def weights(observation: Observation, auxiliary: Auxiliary) -> Params:
    """Return the trained parameters sent, float64."""
    return {name: observation.sent[name].double() for name in trained_names(auxiliary)}
