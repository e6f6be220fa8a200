"""How many labels of each class an update proves, whatever the model has learned."""

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.labels.head import HeadGradient, auxiliary_forward, find_head
from adversary.labels.reading import end_state
from adversary.workspace import Workspace
from fedsim.core.types import Observation

CLEAN = 1e-4  # of the largest entry: noise of less is none
STRAY = 8  # standard deviations that no noise strays
ROUNDING = 2.0**-24  # of a float32 number, at most


def certain(
    observation: Observation, work: Workspace, head: HeadGradient
) -> Float[Tensor, " classes"]:
    """Return how many examples of each class a clean update proves; zero where it is not clean.

    Of one gradient n_c·(1 − ε) = Σ p_c − b_c − εN/C with Σ p_c > 0. Only an example of class c can
    make an entry of row c negative where no feature is, and sums of such gradients keep this.
    Weights uploaded after a single step are a gradient, with the rounding of a difference.

    Args:
        observation: The client's.
        work: With auxiliary inputs.
        head: Its gradient, of which all was uploaded.
    """
    local, update = observation.local, observation.update
    lower = torch.zeros(len(head.observed), dtype=torch.float64)
    spread = float(head.weight.abs().max())
    if spread == 0 or not is_clean(observation, work, head):
        return lower
    several = end_state(observation) is not None or update.num_clients > 1
    epsilon, off = local.label_smoothing, _rounding(observation, work, head)
    if head.bias is not None and not several:
        proven = (-head.bias - epsilon * head.total / len(lower)) / (1 - epsilon)
        # Rounding may put what is a whole number a little above it.
        lower = (proven - max(1e-3, off)).ceil().clamp(min=0)
    # FedProx draws back what others moved, and a cohort's clients may not all be of its size.
    pushed = epsilon == 0 and not (several and (local.proximal_mu or update.num_clients > 1))
    if pushed and float(work.part(auxiliary_forward).features.min()) >= 0:
        least = max(CLEAN * spread, STRAY * noise_variance(head) ** 0.5, off)
        lower = torch.maximum(lower, (head.weight.amin(dim=1) < -least).double())
    return lower if float(lower.sum()) <= head.total // local.epochs else torch.zeros_like(lower)


def is_clean(observation: Observation, work: Workspace, head: HeadGradient) -> bool:
    """Return whether sums over classes that should be zero are so, but for rounding."""
    least = CLEAN * float(head.weight.abs().max())
    return noise_variance(head) <= max(least, _rounding(observation, work, head)) ** 2


def noise_variance(head: HeadGradient) -> float:
    """Return the variance of noise on the entries, from sums over classes that should be zero."""
    sums = head.weight.sum(dim=0)
    if head.bias is not None:
        sums = torch.cat([sums, head.bias.sum().reshape(1)])
    return float(sums.square().mean()) / len(head.weight)


def _rounding(observation: Observation, work: Workspace, head: HeadGradient) -> float:
    """Return how far float32 may put an entry off: of weights that each step rounds."""
    if observation.local.upload == "gradient":
        return 0.0
    weight, bias = find_head(work).rows(observation.sent)
    size = max(float(value.abs().max()) for value in (weight, bias) if value is not None)
    return 2 * ROUNDING * size * abs(head.scale) * head.steps
