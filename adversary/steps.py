"""How many labels and local steps went into an update, and how much each step weighs in it."""

from functools import lru_cache

from torch import Tensor

from fedsim.core.errors import NotApplicable
from fedsim.core.types import LocalTraining, Observation

MOST_STEPS = 100_000  # of a client in a round; attacks simulate each, and a tape may claim any


def num_labels(observation: Observation) -> int:
    """Return how many labels went into the update, one per use of an example.

    Raises:
        ValueError: The client told no number of examples.
    """
    count = observation.update.num_examples
    if count is None:
        raise NotApplicable("num_examples: must be told by the client, got none")
    return count * observation.local.epochs


def num_steps(observation: Observation) -> int:
    """Return how many batch gradients were summed: over local steps, and over a cohort's clients.

    A cohort's clients are taken to have equally many examples.

    Raises:
        ValueError: There would be more steps than attacks simulate.
    """
    clients = observation.update.num_clients
    if observation.local.upload == "gradient":
        return clients
    per_client = -(-num_labels(observation) // (observation.local.epochs * clients))
    steps = steps_of(observation.local, per_client)
    if steps > MOST_STEPS:
        raise ValueError(
            f"num_examples: must be few enough for {MOST_STEPS} local steps, got "
            f"{observation.update.num_examples} for {steps}"
        )
    return clients * steps


def steps_of(local: LocalTraining, count: int) -> int:
    """Return how many batch gradients one client's update of so many examples sums."""
    return 1 if local.upload == "gradient" else local.epochs * -(-count // local.batch_size)


def to_sum(observation: Observation) -> float:
    """Return what an update is multiplied by to give the sum over all labels of loss gradients.

    That is labels per step, and for uploaded weights −1/lr and how much momentum and FedProx make
    a step weigh.
    """
    local, steps = observation.local, num_steps(observation)
    scale = num_labels(observation) / steps
    if local.upload == "weights":
        scale /= -local.lr * mean_weight(local, steps // observation.update.num_clients)
    return scale


@lru_cache(maxsize=64)
def mean_weight(local: LocalTraining, steps: int) -> float:
    """Return how much a step's gradient weighs in −delta / lr, on average over `steps` steps.

    1 for plain SGD. Momentum carries a gradient into all later steps; FedProx pulls it back.
    """
    if not local.momentum and not local.proximal_mu:
        return 1.0
    # The response to one gradient of 1, k steps later; the optimiser is linear in gradients.
    velocity, moved, total = 1.0, 0.0, 0.0
    for _ in range(steps):
        moved += velocity
        total += moved
        velocity = local.momentum * velocity - local.proximal_mu * local.lr * moved
    return total / steps


def trained_state(observation: Observation) -> dict[str, Tensor]:
    """Return the client's model after its training; for a sum over several clients, their mean.

    An uploaded gradient is followed by one step of the protocol's length.
    """
    local, update, sent = observation.local, observation.update, observation.sent
    step = -local.lr if local.upload == "gradient" else 1.0
    delta, clients = update.delta, update.num_clients
    return {n: sent[n] + step * delta[n] / clients if n in delta else sent[n] for n in sent}


def keeps_data(observation: Observation) -> bool:
    """Return whether every upload is of all of the client's data, as far as the server can tell.

    A gradient is of a new batch in every round, if it is of a whole one.
    """
    local, num_examples = observation.local, observation.update.num_examples
    return local.upload == "weights" or (
        num_examples is not None and num_examples < local.batch_size
    )
