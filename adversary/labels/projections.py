"""What one example of each class adds to all that was uploaded, whatever the model ends in.

`moments` reads a linear head. Here nothing is known of the model but that it can be run: an
example's share is its gradient of the loss at the uploaded parameters, by autodiff, and the sketch
is its projections on what the classes' mean gradients differ in, tensor by tensor from the last
one back. It serves heads that are convolutions, cosines, sums or tied to an embedding, and updates
from which the head is missing.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.labels.directions import LARGEST, Masks, basis_of, shares, start_shares
from adversary.labels.gradients import (
    labelled,
    summed_sent,
)
from adversary.labels.moments import Moments, measure, scales
from adversary.labels.reading import end_state
from adversary.steps import num_labels, to_sum
from adversary.workspace import Workspace, working_copy
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Observation, Params

SIMPSON = (1 / 6, 4 / 6, 1 / 6)  # weights of the model sent, half-way, and uploaded
PRUNED = 0.01  # of a matrix's entries that are zero beyond those that are so by chance
DRAWS = 8  # of auxiliary examples, to see how many entries are zero by chance


@dataclass(frozen=True)
class Projected:
    """An update and the moments of one example, in the same coordinates.

    Attributes:
        sketch: Of the update, per use of an example.
        moments: Of one example.
        noise: Variance of each coordinate that is no example's.
    """

    sketch: Float[Tensor, " kept"]
    moments: Moments
    noise: Float[Tensor, " kept"]


def project(observation: Observation, work: Workspace) -> Projected:
    """Project a client's update, and measure what examples of each class would have added to it.

    Over several local steps an example's share is its mean along the straight way from the model
    sent to the model uploaded. Models are run as in evaluation: batches have no part in a share.

    Raises:
        NotApplicable: No trained parameter was uploaded, or the protocol is not told.
        ValueError: The update is not finite.
    """
    classes, epochs = work.auxiliary.num_classes, observation.local.epochs
    scale = to_sum(observation) / epochs
    moved = moved_tensors(observation, work)
    total = {name: value.double() * scale for name, value in moved.items()}
    if not all(bool(torch.isfinite(value).all()) for value in total.values()):
        raise ValueError("update: must be finite, got NaN or infinity")
    count = num_labels(observation) // epochs
    basis = basis_of(work, list(total), _pruned(total, work, count))
    states, weights = _way(observation)
    if len(states) == 1 and not basis.masks:
        products, energies = work.part(start_shares, basis.groups, keep=4)
    else:
        products, energies = shares(work, basis, states, weights)
    coordinates = basis.coordinates(products)
    flat = {name: value.flatten().float().unsqueeze(0) for name, value in total.items()}
    sketch = basis.coordinates(basis.products(flat))[0]
    noise = _noise(total, sketch, count, coordinates, energies)
    kept = torch.ones(len(coordinates), dtype=torch.bool)
    kept[basis.directions.spent] = False
    coordinates, labels = coordinates[kept], labelled(work)[1][kept]
    spread, varying = scales(coordinates, labels, classes)
    return Projected(
        sketch[varying] / spread,
        measure(coordinates[:, varying] / spread, labels, classes),
        noise / spread.square(),
    )


def _way(observation: Observation) -> tuple[list[Params], tuple[float, ...]]:
    """Return states between the model sent and the model uploaded, and their weights."""
    sent, end = observation.sent, end_state(observation)
    if end is None:
        return [sent], (1.0,)
    return [sent, {name: (value + end[name]) / 2 for name, value in sent.items()}, end], SIMPSON


def _noise(
    total: Params, sketch: Tensor, count: int, coordinates: Tensor, energies: Float[Tensor, " n"]
) -> float:
    """Return the variance of noise on an entry: energy beyond what so many examples may have.

    Args:
        total: The update.
        sketch: Its coordinates.
        count: How many examples.
        coordinates: Of auxiliary examples.
        energies: Squared norms of these.
    """
    outside = energies - coordinates.square().sum(dim=1)
    most = count * float(outside.mean()) + 2 * count**0.5 * float(outside.std(unbiased=False))
    rest = sum(float(v.square().sum()) for v in total.values()) - float(sketch.square().sum())
    entries = sum(value.numel() for value in total.values()) - len(sketch)
    return max(0.0, rest - most) / max(1, entries)


def moved_tensors(observation: Observation, work: Workspace) -> dict[str, Tensor]:
    """Return the update of the trained parameters that it moved, from the last one back.

    Raises:
        NotApplicable: There is none.
    """
    delta, moved, numbers = observation.update.delta, dict[str, Tensor](), 0
    model, uploaded = work.lasting(working_copy), set(delta)
    for name, value in reversed(list(model.named_parameters())):
        if not value.requires_grad or name not in uploaded or not bool((part := delta[name]).any()):
            continue
        numbers += value.numel() * work.auxiliary.num_classes
        if moved and numbers > LARGEST:
            break
        moved[name] = part
    if not moved:
        raise NotApplicable("update: must move a trained parameter, got none that it moves")
    return moved


def _pruned(total: Params, work: Workspace, count: int) -> Masks:
    """Return which entries a pruning client left; nothing where it seems to have pruned nothing.

    The last matrix decides. Units and features that no example has make zeros there too: about
    as many as in the sum of as many auxiliary examples.
    """
    name = next((n for n, v in total.items() if v.dim() > 1), None)
    if name is None or float(_zeros(total[name])) < PRUNED + work.part(zeros_of, name, count):
        return {}
    return {name: value.flatten() != 0 for name, value in total.items()}


def zeros_of(work: Workspace, name: str, count: int) -> float:
    """Return the share of zeros that a tensor's gradient of so many examples may have by chance.

    A part of the workspace: the largest of several draws of auxiliary examples, and as much above
    it as they differ by.
    """
    shares = []
    for draw in range(DRAWS):
        order = torch.randperm(len(labelled(work)[1]), generator=generator(draw, "zeros"))
        shares.append(float(_zeros(summed_sent(work, order[:count], [name])[name])))
    return 2 * max(shares) - min(shares)


def _zeros(matrix: Tensor) -> Tensor:
    """Return the share of zeros among rows and columns that are not all zero."""
    zero = matrix.flatten(1) == 0
    return zero[~zero.all(dim=1)][:, ~zero.all(dim=0)].double().mean().nan_to_num(0.0)
