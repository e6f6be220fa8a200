"""How well an answer explains an upload: all that an adversary without the truth can hold it to.

The client's training is simulated on the answer, and what it would upload is compared with what
came. An answer that differs by no more than rounding explains the upload; where the gradient leaves
directions of the input open, another input may explain it as well.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adversary.inversion.local_steps import flat, one_hot, simulated, smoothed
from adversary.inversion.problems import Problem, problem_of
from adversary.inversion.rows import Rows
from fedsim.core.doubled import doubled
from fedsim.core.params import norm, ulp
from fedsim.core.types import Auxiliary, Observation

SINGLE = 1e-5  # relative error of a gradient that is computed in 32 bits
ROUNDING = 3.0  # times the rounding of uploaded weights is no difference
UNVERIFIED = "the answer is not verified"
TELLING = 1e-2  # share of an upload up to which its rounding leaves no other answers, about
CLASSES = 100  # labels that are tried, at most
EQUATIONS = 4  # times as many entries of the gradient as unknown labels' probabilities
MOST = 50_000_000  # numbers of the system of labels


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

    def verdict(self, misfit: float) -> str:
        """Return in words whether an answer explains the upload, and no other answer could."""
        return verdict(misfit, self.enough)

    def misfit(self, inputs: Float[Tensor, "k *shape"], *, ordered: bool = True) -> float | None:
        """Return ‖u(x) − u‖/‖u‖ over the uploads; None where an answer cannot be held to it.

        Of one example with an unknown label, the least over labels.

        Args:
            inputs: The answer.
            ordered: Whether it is in the order of the labels. Else, of one step alone, labels go to
                inputs as the gradient demands.
        """
        problem, count = self.problem, self.problem.shape[0]
        if len(inputs) != count:
            return None
        tries = [self.labels]
        if self.labels is None and count == 1:
            tries = [torch.tensor([label]) for label in range(min(problem.classes, CLASSES))]
        elif not ordered and count > 1:
            tries = [self._labels_of(inputs)]
        values = [self._of(inputs, labels) for labels in tries if labels is not None]
        key = lambda value: value if math.isfinite(value) else math.inf
        return min(values, key=key, default=None)

    def _labels_of(self, inputs: Tensor) -> Tensor | None:
        """Return the labels with which inputs give the gradient.

        None where that is too much, or batch norm mixes examples.

        The gradient is linear in each example's target: Σ_i J_iᵀ(p_i − t_i)/n, solved by least
        squares in as many entries as it takes, of the smallest parameters first.
        """
        problem, model, (count, *shape) = self.problem, self.problem.model.model, self.problem.shape
        classes, weights = problem.classes, problem.model.weights
        if any(isinstance(it, nn.modules.batchnorm._BatchNorm) for it in model.modules()):
            return None
        names: list[str] = []
        for name in sorted(weights, key=lambda it: weights[it].numel()):
            if sum(weights[it].numel() for it in names) < EQUATIONS * count * classes:
                names.append(name)
        if count * classes * sum(weights[it].numel() for it in names) > MOST:
            return None
        rows = Rows(model, dict(model.state_dict()), names)
        x = inputs.to(rows.dtype).view(count, *shape)
        targets = smoothed(torch.eye(classes, dtype=rows.dtype), problem.local)
        each = rows.gradients(
            x.repeat_interleave(classes, dim=0)[:, None],
            targets.repeat(count, 1)[:, None],
            differentiable=False,
        )
        chances = rows.model(x).softmax(dim=1)
        sizes = [value.numel() for value in weights.values()]
        observed = dict(zip(weights, problem.observed[0].split(sizes), strict=True))
        right = torch.cat([observed[name] for name in rows.weights])
        shares = torch.linalg.lstsq(flat(each).T / count, right[:, None], driver="gelsd").solution
        shares = shares.view(count, classes)
        slopes = chances * shares.sum(dim=1, keepdim=True) - shares @ targets
        return (chances - slopes).argmax(dim=1)

    def _of(self, inputs: Tensor, labels: Tensor) -> float:
        problem = self.problem
        x = inputs.to(problem.model.dtype).view(1, *problem.shape)
        targets = one_hot(labels, problem.classes, problem.model.dtype)[None]
        parts = simulated(problem.model, x, targets, problem.local, differentiable=False)
        upload = flat(parts).detach()
        apart = float((upload / problem.unit - problem.observed).norm())
        return apart / float(problem.observed.norm())


def verdict(misfit: float, rounding: float) -> str:
    """Return in words whether an answer explains an upload, and no other answer could.

    Args:
        misfit: ‖u(x) − u‖/‖u‖, u the upload.
        rounding: The misfit that rounding alone makes.
    """
    said = f"differs by {misfit:.1g} of the client's, rounding by {rounding:.1g}"
    if rounding > TELLING:
        said += f", which must be at most {TELLING:g} to tell answers apart"
    return said if verified(misfit, rounding) else f"{said}: {UNVERIFIED}"


def verified(misfit: float, rounding: float) -> bool:
    """Return whether an answer explains an upload to its rounding, and no other could."""
    return misfit <= rounding <= TELLING


def enough(observation: Observation, problem: Problem) -> float:
    """Return the misfit that rounding alone makes, about: of uploaded weights and of 32 bits."""
    if observation.local.upload == "gradient":
        return SINGLE
    sent = {name: observation.sent[name] for name in problem.model.weights}
    error = float(norm({name: ulp(value) for name, value in sent.items()})) / math.sqrt(12)
    length = float(problem.observed.norm()) * abs(problem.unit)
    return max(SINGLE, ROUNDING * error / length)
