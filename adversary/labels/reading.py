"""What several attacks read out of an observation besides the head's gradient."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.labels.head import Forward, HeadGradient, forward, read_head
from adversary.steps import num_steps
from adversary.workspace import Workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Observation, Params


def read_bias(
    observation: Observation, work: Workspace, attack: str
) -> tuple[HeadGradient, Float[Tensor, " classes"], float]:
    """Return the head's gradient, Σ over labels of p − t·e_y, and t.

    Label smoothing ε leaves t = 1 − ε on the label and spreads ε over all classes, label or not;
    that known share, ε·N/C a class, is taken out here. Without smoothing t = 1 and the sums are
    the bias gradient itself.

    Raises:
        ValueError: The head has no bias, or there is no head to read.
    """
    head = read_head(observation, work)
    if head.bias is None:
        raise NotApplicable(f"{attack}: the head must have a bias, got none")
    smoothing = observation.local.label_smoothing
    spread = smoothing * head.total / work.auxiliary.num_classes
    return head, head.bias + spread, 1 - smoothing


def steps_per_client(observation: Observation) -> int:
    """Return how many local steps each client took."""
    return num_steps(observation) // observation.update.num_clients


def end_state(observation: Observation) -> Params | None:
    """Return the model after local training, of a cohort the mean.

    None for a gradient, and for a single step: all its probabilities are those of the model sent.
    """
    if observation.local.upload == "gradient" or steps_per_client(observation) == 1:
        return None
    delta, clients = observation.update.delta, observation.update.num_clients
    sent = observation.sent
    return {n: sent[n] + delta[n] / clients if n in delta else sent[n] for n in sent}


def end_forward(
    observation: Observation,
    work: Workspace,
    inputs: Tensor | None,
    rows: Int[Tensor, " rows"] | None = None,
) -> Forward | None:
    """Return what the model in `end_state` computes on inputs, or on those named by `rows`.

    Raises:
        ValueError: It computes NaN or infinity.
    """
    end = end_state(observation)
    if end is None or inputs is None:
        return None
    outputs = forward(work, end, inputs if rows is None else inputs[rows])
    check_finite(outputs.logits.sum() + outputs.features.sum())
    return outputs


def check_finite(computed: Float[Tensor, ""]) -> None:
    """Refuse to go on with a model that local training blew up."""
    if not torch.isfinite(computed):
        raise ValueError("update: the uploaded model must compute finite numbers, got others")
