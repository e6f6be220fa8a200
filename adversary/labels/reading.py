"""What several attacks read out of an observation besides the head's gradient."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.labels.head import (
    Forward,
    HeadGradient,
    auxiliary_forward,
    forward,
    noise_forward,
    read_head,
)
from adversary.steps import num_steps, trained_state
from adversary.workspace import Workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Observation, Params


@dataclass(frozen=True)
class Residuals:
    """What an update says of p − target, summed over labels.

    Attributes:
        head: The head's gradient.
        sums: Σ over labels of p − t·e_y, each times its weight.
        hit: t, the part of a label's target that is on its own class.
        direction: What rows of the weight are projected on in place of a bias; None with a bias.
    """

    head: HeadGradient
    sums: Float[Tensor, " classes"]
    hit: float
    direction: Float[Tensor, " features"] | None

    def weights(self, features: Float[Tensor, "n features"]) -> Float[Tensor, " n"] | None:
        """Return how much examples weigh in the sums, about 1; None where all weigh 1."""
        return None if self.direction is None else features.double() @ self.direction


def read_residuals(observation: Observation, work: Workspace) -> Residuals:
    """Read the head's bias gradient; of a head without, rows summed with weights.

    Label smoothing ε leaves t = 1 − ε on the label and spreads ε over all classes, label or not;
    that known share, ε·N/C a class, is taken out here. Without smoothing t = 1 and the sums are
    the bias gradient itself.

    A row of the weight's gradient is Σ (p_i − target_i)·h. Its product with h̄/‖h̄‖², where h̄ is
    the mean of h, is the bias entry in which each example weighs h·h̄/‖h̄‖², which is 1 on average.
    The row sum of the LLG paper has all ones in place of h̄, and vanishes behind a LayerNorm.

    Raises:
        ValueError: There is no head to read, or it has no bias and features are 0 on average.
    """
    head, local = read_head(observation, work), observation.local
    rows = head.bias is None or bias_is_withheld(head, work)
    direction = work.part(mean_direction) if rows else None
    sums = head.bias if direction is None else head.weight @ direction
    assert sums is not None
    spread = local.label_smoothing * head.total / work.auxiliary.num_classes
    return Residuals(head, sums + spread, 1 - local.label_smoothing, direction)


def bias_is_withheld(head: HeadGradient, work: Workspace) -> bool:
    """Return whether a bias of zeros contradicts the rows, which it may not where classes balance.

    Rows of a bias of zeros are what examples' weights differ from 1 by.
    """
    if head.bias is None or bool(head.bias.any()) or not bool(head.observed.any()):
        return False
    direction = work.part(mean_direction)
    noise = work.auxiliary.inputs is None
    features = work.part(noise_forward if noise else auxiliary_forward).features
    spread = float((features.double() @ direction).std())
    return float((head.weight @ direction).abs().max()) > 3 * spread * head.total**0.5


def mean_direction(work: Workspace) -> Float[Tensor, " features"]:
    """Return h̄/‖h̄‖² of auxiliary inputs, of noise without any: a part of the workspace.

    Raises:
        NotApplicable: h̄ is 0.
    """
    noise = work.auxiliary.inputs is None
    mean = work.part(noise_forward if noise else auxiliary_forward).features.double().mean(dim=0)
    square = float(mean.square().sum())
    if not 0 < square < float("inf"):
        raise NotApplicable(
            "features: must have a mean other than 0 where the head has no bias, "
            f"got one of norm {square**0.5:g}"
        )
    return mean / square


def steps_per_client(observation: Observation) -> int:
    """Return how many local steps each client took."""
    return num_steps(observation) // observation.update.num_clients


def end_state(observation: Observation) -> Params | None:
    """Return the model after local training, of a cohort the mean.

    None for a gradient, and for a single step: all its probabilities are those of the model sent.
    """
    if observation.local.upload == "gradient" or steps_per_client(observation) == 1:
        return None
    return trained_state(observation)


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
    if inputs is None or end_state(observation) is None:
        return None
    if rows is None and inputs is work.auxiliary.inputs:
        return work.part(_uploaded, observation, keep=2)  # several attacks ask for it
    return _computed(work, observation, inputs if rows is None else inputs[rows])


def _uploaded(work: Workspace, observation: Observation) -> Forward:
    """Return what the uploaded model makes of all auxiliary inputs: a part of the workspace."""
    assert work.auxiliary.inputs is not None
    return _computed(work, observation, work.auxiliary.inputs)


def _computed(work: Workspace, observation: Observation, inputs: Tensor) -> Forward:
    end = end_state(observation)
    assert end is not None
    outputs = forward(work, end, inputs)
    check_finite(outputs.logits.sum() + outputs.features.sum())
    return outputs


def check_finite(computed: Float[Tensor, ""]) -> None:
    """Refuse to go on with a model that local training blew up.

    Raises:
        ValueError: It computed a number that is not finite.
    """
    if not torch.isfinite(computed):
        raise ValueError("update: the uploaded model must compute finite numbers, got others")
