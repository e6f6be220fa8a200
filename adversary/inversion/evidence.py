"""How well an answer explains an upload: all that an adversary without the truth can hold it to.

The client's training is simulated on the answer, and what it would upload is compared with what
came. An answer that differs by no more than rounding explains the upload; where the gradient leaves
directions of the input open, another input may explain it as well.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.inversion.local_steps import flat, one_hot, simulated
from adversary.inversion.problems import Problem, problem_of
from fedsim.core.doubled import doubled
from fedsim.core.params import norm, ulp
from fedsim.core.types import Auxiliary, Observation

SINGLE = 1e-5  # relative error of a gradient that is computed in 32 bits
ROUNDING = 3.0  # times the rounding of uploaded weights is no difference
CLASSES = 100  # labels that are tried, at most


class Evidence:
    """What came from a client, and how far from it answers are.

    Args:
        observation: The upload.
        auxiliary: The architecture.
        labels: Of the examples, in the order of an answer; None where only their number is known.

    Raises:
        ValueError: As `adversary.inversion.matching.problem_of`.
    """

    def __init__(
        self, observation: Observation, auxiliary: Auxiliary, labels: Int[Tensor, " n"] | None
    ) -> None:
        model = doubled(auxiliary.model)
        self.problem: Problem = problem_of(observation, replace(auxiliary, model=model))
        self.labels = labels
        self.enough = enough(observation, self.problem)

    def misfit(self, inputs: Float[Tensor, "k *shape"]) -> float | None:
        """Return ‖u(x) − u‖/‖u‖ over the uploads; None where an answer cannot be held to it.

        Of one example with an unknown label, the least over labels.
        """
        problem, count = self.problem, self.problem.shape[0]
        if len(inputs) != count or (self.labels is None and count > 1):
            return None
        tries = [self.labels]
        if self.labels is None:
            tries = [torch.tensor([label]) for label in range(min(problem.classes, CLASSES))]
        values = [self._of(inputs, labels) for labels in tries if labels is not None]
        return min(values, key=lambda value: value if math.isfinite(value) else math.inf)

    def _of(self, inputs: Tensor, labels: Tensor) -> float:
        problem = self.problem
        x = inputs.to(problem.model.dtype).view(1, *problem.shape)
        targets = one_hot(labels, problem.classes, problem.model.dtype)[None]
        parts = simulated(problem.model, x, targets, problem.local, differentiable=False)
        upload = flat(parts).detach()
        apart = float((upload / problem.unit - problem.observed).norm())
        return apart / float(problem.observed.norm())


def enough(observation: Observation, problem: Problem) -> float:
    """Return the misfit that rounding alone makes, about: of uploaded weights and of 32 bits."""
    if observation.local.upload == "gradient":
        return SINGLE
    sent = {name: observation.sent[name] for name in problem.model.weights}
    error = float(norm({name: ulp(value) for name, value in sent.items()})) / math.sqrt(12)
    length = float(problem.observed.norm()) * abs(problem.unit)
    return max(SINGLE, ROUNDING * error / length)
