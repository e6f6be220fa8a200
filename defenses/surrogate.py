"""A defender's own attacker: it guesses a secret from gradients, to be misled by the defense."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from defenses.defense import Marked
from fedsim.core.examples import example_gradients, flat_rows
from fedsim.core.rng import generator
from fedsim.core.types import Params

RIDGES = tuple(10.0**k for k in range(-3, 4))  # of the mean eigenvalue; the best is chosen


class Surrogate:
    """A linear attacker of the defender's own, fitted at the weights that it is asked about.

    Attributes:
        marked: The records that it is fitted on.
    """

    def __init__(self, marked: Marked, most: int) -> None:
        """Keep so many records, at most, of those with a mark."""
        rows = torch.nonzero(marked.marks >= 0)[:, 0]
        order = torch.randperm(len(rows), generator=generator(0, "perturb", "records"))
        rows = rows[order[:most]]
        self.marked = Marked(marked.inputs[rows], marked.labels[rows], marked.marks[rows])
        self._weights, self._last = torch.empty(0), None

    def at(self, model: nn.Module, parameters: Params, smoothing: float) -> "Linear":
        """Return the surrogate at the model's weights; the last one is kept."""
        weights = torch.cat([value.detach().flatten() for value in parameters.values()])
        if self._last is None or not torch.equal(weights, self._weights):
            self._weights, self._last = weights, self._fitted(model, parameters, smoothing)
        return self._last

    def _fitted(self, model: nn.Module, parameters: Params, smoothing: float) -> "Linear":
        each = example_gradients(
            model, parameters, self.marked.inputs, self.marked.labels, label_smoothing=smoothing
        )
        rows = torch.cat([flat_rows(g) for g in each.values()], dim=1)
        return ridge(rows, functional.one_hot(self.marked.marks.long()).double())


class Linear(NamedTuple):
    """f(g) = centre + (g − mean)·A, shapes (k,), (d,) and (d, k)."""

    centre: Tensor
    mean: Tensor
    slopes: Tensor


def ridge(rows: Float[Tensor, "n d"], targets: Float[Tensor, "n k"]) -> Linear:
    """Return ridge regression, its strength by generalised cross-validation, in the dual."""
    mean, centre = rows.mean(dim=0), targets.mean(dim=0)
    around = rows - mean
    values, vectors = torch.linalg.eigh((around @ around.T).double())
    values = values.clamp(min=0)
    rotated, level = vectors.T @ (targets - centre), float(values.mean()) + 1e-30

    def error(share: float) -> float:
        left = share * level / (values + share * level)
        return float((left[:, None] * rotated).square().sum() / left.sum().square())

    best = min(RIDGES, key=error) * level
    dual = vectors @ (rotated / (values + best)[:, None])
    return Linear(centre, mean.double(), (around.T @ dual.to(around.dtype)).double())
