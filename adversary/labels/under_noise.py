"""What all of one noisy gradient says of label counts, not the head's part alone.

Noise hides the head first: it is small, and where it was rounded its tensors have noise of several
levels. The other layers' gradients depend on labels too. Every tensor is projected on the classes'
mean gradients (`projections`), and weighs by the noise that it has itself (`rounding`).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.labels.directions import (
    Directions,
    Projections,
    basis_of,
    directions_of,
    start_shares,
)
from adversary.labels.gls import Fit, fit_counts
from adversary.labels.gradients import labelled
from adversary.labels.head import find_head, forward
from adversary.labels.moments import Moments, measure, scales
from adversary.labels.projections import moved_tensors
from adversary.labels.reading import end_state
from adversary.labels.rounding import Remainder, is_signs, step_of, variances
from adversary.steps import num_labels, to_sum
from adversary.workspace import Workspace, as_inputs, evaluating
from fedsim.core.types import Observation

MEANS = 2**25  # numbers in all classes' mean gradients: of larger models the last tensors
PRODUCTS = 2**34  # products of auxiliary examples' gradients with all directions
DIRECTIONS = 60  # besides the classes' means
MODES = 16  # examples that show whether a model is the same in training as evaluated
MISFIT = 1.5  # times its expectation, the squared error from which a fit is not trusted


@dataclass(frozen=True)
class Prepared:
    """What all noisy gradients of one model are read with: a part of the workspace.

    Attributes:
        basis: Of the coordinates.
        varying: Which of them vary within classes, and
        spread: by how much.
        moments: Of one example.
        grams: Per tensor, products of its directions: the classes' means, then the rest.
        within: Per tensor, the mean squared distance of an example to its class's mean.
    """

    basis: Projections
    varying: Tensor
    spread: Float[Tensor, " kept"]
    moments: Moments
    grams: dict[str, Float[Tensor, "directions directions"]]
    within: dict[str, float]

    def noise(self, entries: dict[str, float]) -> Float[Tensor, "kept kept"]:
        """Return the coordinates' covariance, from variances of the entries per tensor."""
        turns, classes = self.basis.turns, len(self.moments.counts)
        ends = torch.tensor([turn.shape[1] for turn in turns]).cumsum(0).tolist()
        total = torch.zeros(ends[-1], ends[-1], dtype=torch.float64)
        rest = slice(ends[-1] - turns[-1].shape[1], ends[-1])
        for turn, end, group in zip(turns, ends, self.basis.groups, strict=False):
            place = slice(end - turn.shape[1], end)
            both = torch.stack([entries[n] * _centred(self.grams[n], classes) for n in group])
            gram = both.sum(dim=0)
            total[place, place] = turn.T @ gram[:classes, :classes] @ turn
            total[place, rest] = turn.T @ gram[:classes, classes:] @ turns[-1]
            total[rest, place] = total[place, rest].T
            total[rest, rest] += turns[-1].T @ gram[classes:, classes:] @ turns[-1]
        kept = total[self.varying][:, self.varying]
        return kept / self.spread / self.spread.unsqueeze(1)


def fit_all(observation: Observation, work: Workspace) -> Fit | None:
    """Fit counts to all tensors of one noisy gradient.

    None of several local steps, where little but the head can be looked at, where examples of a
    batch depend on each other or on chance, and where counts explain the update badly.

    Args:
        observation: The client's.
        work: With auxiliary inputs and labels of every class.
    """
    names = _looked_at(observation, work)
    if names is None or not work.part(same_when_evaluated):
        return None
    prepared, count = work.part(prepare, names), num_labels(observation)
    scale, delta = to_sum(observation), observation.update.delta
    update = {name: delta[name].double().flatten() * scale for name in names}
    signs = {name for name, value in update.items() if is_signs(value)}
    # The sign of a normal entry, times its mean size, has 2/π of its mean.
    update = {n: value * (math.pi / 2 if n in signs else 1) for n, value in update.items()}
    rows = {name: value.float().unsqueeze(0) for name, value in update.items()}
    coordinates = prepared.basis.coordinates(prepared.basis.products(rows))[0]
    sketch = coordinates[prepared.varying] / prepared.spread
    remainders = {
        name: _remainder(value, prepared, name, count, signs=name in signs)
        for name, value in update.items()
    }
    noise, moments = prepared.noise(variances(remainders)), prepared.moments
    nothing = torch.zeros(len(moments.counts), dtype=torch.float64)
    fit = fit_counts(sketch, moments, nothing, count, noise=noise)
    covariance = moments.covariance(moments.weights(fit.counts)) + noise
    away = sketch - moments.means @ fit.counts
    misfit = float(away @ torch.linalg.solve(covariance, away)) / len(away)
    return fit if misfit <= MISFIT else None


def prepare(work: Workspace, names: tuple[str, ...]) -> Prepared:
    """Measure what is needed to read gradients of these tensors: a part of the workspace."""
    basis, classes = basis_of(work, names, {}), work.auxiliary.num_classes
    directions = work.part(directions_of, names)
    kept = torch.ones(len(labelled(work)[1]), dtype=torch.bool)
    kept[directions.spent] = False
    coordinates = basis.coordinates(work.part(start_shares, basis.groups, keep=4)[0])[kept]
    labels = labelled(work)[1][kept]
    spread, varying = scales(coordinates, labels, classes)
    return Prepared(
        basis=basis,
        varying=varying,
        spread=spread,
        moments=measure(coordinates[:, varying] / spread, labels, classes),
        grams={name: _gram(directions, name) for name in names},
        within={n: float(v.square().sum(dim=1).mean()) for n, v in directions.rest.items()},
    )


def same_when_evaluated(work: Workspace) -> bool:
    """Return whether the model computes the same in training as evaluated, on a few examples.

    A part of the workspace.
    """
    inputs = labelled(work)[0][:MODES]
    trained = forward(work, work.sent, inputs).logits
    with evaluating(work, work.sent) as model, torch.no_grad():
        evaluated = model(as_inputs(inputs, model))
    return bool(torch.allclose(trained, evaluated.reshape(trained.shape), rtol=1e-3, atol=1e-4))


def _looked_at(observation: Observation, work: Workspace) -> tuple[str, ...] | None:
    """Return the tensors that are looked at, from the last one back; None if there is no gain."""
    if end_state(observation) is not None:
        return None
    labels, classes = labelled(work)[1], work.auxiliary.num_classes
    most = min(MEANS // classes, PRODUCTS // (len(labels) * (classes + DIRECTIONS)))
    names, numbers = list[str](), 0
    for name, value in moved_tensors(observation, work).items():
        numbers += value.numel()
        if numbers > most:
            break
        names.append(name)
    head = find_head(work)
    others = set(names) - {head.weight, head.bias}
    return tuple(names) if head.weight in names and others else None


def _remainder(
    value: Float[Tensor, " entries"], prepared: Prepared, name: str, count: int, *, signs: bool
) -> Remainder:
    """Return what of an update's tensor lies outside the span of the classes' means."""
    classes = len(prepared.moments.counts)
    means = prepared.basis.directions.means[name].double()
    values, vectors = torch.linalg.eigh(prepared.grams[name][:classes, :classes])
    kept = values > 1e-6 * values.amax().clamp(min=1e-300)
    inside = (vectors[:, kept].T @ (means @ value)).square() / values[kept]
    energy = max(0.0, float(value.square().sum() - inside.sum()))
    return Remainder(
        square=float(value.square().sum()),
        energy=energy,
        freedom=max(0, len(value) - int(kept.sum())),
        examples=count * prepared.within[name],
        size=len(value),
        step=None if signs else step_of(value),
        signs=signs,
    )


def _gram(directions: Directions, name: str) -> Float[Tensor, "directions directions"]:
    """Return the products of a tensor's directions."""
    rows = torch.cat([directions.means[name], directions.rest[name]])
    return (rows @ rows.T).double()


def _centred(gram: Tensor, classes: int) -> Float[Tensor, "directions directions"]:
    """Return the products of directions where the classes' means are less the mean of all."""
    turn = torch.eye(len(gram), dtype=torch.float64)
    turn[:classes, :classes] -= 1 / classes
    return turn @ gram @ turn.T
