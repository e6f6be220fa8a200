"""What makes a reconstruction fail in a run: told before it starts, and recorded in each round."""

import copy

import torch
from torch import nn

from adversary.inversion.obstacles import Obstacle, obstacles
from fedsim.core.boundary import raised
from fedsim.core.errors import FedsimError
from fedsim.core.rng import generator, global_stream
from fedsim.core.rows import Measure
from fedsim.core.types import LocalTraining, Observation, Params
from fedsim.explain.explanation import Shape


def hindrances(
    model: nn.Module, sent: Params, shape: Shape, local: LocalTraining, num_examples: int
) -> list[Obstacle]:
    """Return what stands between an update and its client's examples, at the weights sent.

    Args:
        model: The architecture; left as it is.
        sent: Weights of the model.
        shape: Shape of one example.
        local: How clients train.
        num_examples: Number of a client's examples.
    """
    with global_stream(0, "explain"):
        model = copy.deepcopy(model)
        model.load_state_dict(dict(sent))
        at = torch.rand(shape, generator=generator(0, "explain", "input"))
        return obstacles(model, shape, local, num_examples, at)


def hindered(model: nn.Module, observation: Observation, shape: Shape) -> list[Measure]:
    """Return what stands in the way of reconstruction in a round, as metrics rows."""
    update, local = observation.update, observation.local
    count = update.num_examples or local.batch_size
    try:
        results = hindrances(model, observation.sent, shape, local, count)
    except FedsimError:
        raise
    except Exception as error:  # a user's model may not run as reconstruction needs it
        reason = f"the model cannot be looked at ({raised(error)})"
        return [Measure(update.round, "server", "obstacle", 1.0, reason=reason)]
    return [Measure(update.round, "server", "obstacle", 1.0, reason=str(it)) for it in results]
