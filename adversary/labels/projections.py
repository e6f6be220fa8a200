"""What one example of each class adds to all that was uploaded, whatever the model ends in.

`moments` reads a linear head. Here nothing is known of the model but that it can be run: an
example's share is its gradient of the loss at the uploaded parameters, by autodiff, and the sketch
is its projections on what the classes' mean gradients differ in, tensor by tensor from the last
one back. It serves heads that are convolutions, cosines, sums or tied to an embedding, and updates
from which the head is missing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adversary.labels.gradients import (
    class_means,
    example_rows,
    labelled,
    parameters_of,
    summed,
)
from adversary.labels.moments import Moments, measure, scales
from adversary.labels.reading import end_state
from adversary.steps import num_labels, to_sum
from adversary.workspace import Workspace, evaluating, working_copy
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Observation, Params

LARGEST = 2**27  # numbers in all classes' mean gradients: of larger models the last tensors
DIMENSIONS = 150  # of a sketch along the means, where classes leave more than one group
REST = 60  # examples whose own gradients are directions too, a quarter of all at most
CHUNK = 2**25  # numbers in the gradients of the examples that are looked at together
SIMPSON = (1 / 6, 4 / 6, 1 / 6)  # weights of the model sent, half-way, and uploaded
PRUNED = 0.01  # of a matrix's entries that are zero beyond those that are so by chance
DRAWS = 8  # of auxiliary examples, to see how many entries are zero by chance
FEWEST = 1e-10  # of the largest eigenvalue: what is below counts as no direction

Groups = tuple[tuple[str, ...], ...]
Masks = dict[str, Bool[Tensor, " entries"]]


@dataclass(frozen=True)
class Directions:
    """What updates are projected on, per tensor; a part of the workspace.

    Attributes:
        means: Each class's mean gradient.
        rest: Of some auxiliary examples, the gradient less their own class's mean.
        spent: Which examples these are: they say nothing of moments any more.
    """

    means: dict[str, Float[Tensor, "classes entries"]]
    rest: dict[str, Float[Tensor, "some entries"]]
    spent: Int[Tensor, " some"]

    def masked(self, masks: "Masks") -> "Directions":
        """Return them without what a pruning client does not upload."""
        if not masks:
            return self
        means = {name: value * masks[name] for name, value in self.means.items()}
        return Directions(means, {n: v * masks[n] for n, v in self.rest.items()}, self.spent)


@dataclass(frozen=True)
class Products:
    """Inner products of gradients with directions."""

    means: Float[Tensor, "n groups classes"]
    rest: Float[Tensor, "n some"]


@dataclass(frozen=True)
class Projections:
    """A linear map from an update to few numbers.

    Attributes:
        groups: Names of the tensors that are projected together on the classes' means; on the rest
            all are.
        masks: Per tensor, which entries a pruning client left; empty where it pruned nothing.
        directions: Masked.
        turns: Per group, from products to coordinates in an orthonormal basis of what the means
            differ in; the last one of the rest.
    """

    groups: Groups
    masks: Masks
    directions: Directions
    turns: tuple[Float[Tensor, "_ _"], ...]

    def coordinates(self, products: Products) -> Float[Tensor, "n coordinates"]:
        """Return coordinates, from products."""
        centred = products.means - products.means.mean(dim=2, keepdim=True)
        parts = [centred[:, g] @ turn for g, turn in enumerate(self.turns[:-1])]
        return torch.cat([*parts, products.rest @ self.turns[-1]], dim=1)

    def products(self, rows: dict[str, Float[Tensor, "n entries"]]) -> Products:
        """Return the products of gradients, given per tensor as rows, with all directions."""
        by = {
            name: (rows[name] @ value.T).double() for name, value in self.directions.means.items()
        }
        means = torch.stack([_sum(by[name] for name in group) for group in self.groups], dim=1)
        rest = _sum((rows[n] @ value.T).double() for n, value in self.directions.rest.items())
        return Products(means, rest)


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
        products, energies = _shares(work, basis, states, weights)
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
    with evaluating(work, work.sent) as model:
        parameter = parameters_of(model, [name])
        for draw in range(DRAWS):
            order = torch.randperm(len(labelled(work)[1]), generator=generator(draw, "zeros"))
            shares.append(float(_zeros(summed(work, model, parameter, order[:count])[name])))
    return 2 * max(shares) - min(shares)


def _zeros(matrix: Tensor) -> Tensor:
    """Return the share of zeros among rows and columns that are not all zero."""
    zero = matrix.flatten(1) == 0
    return zero[~zero.all(dim=1)][:, ~zero.all(dim=0)].double().mean().nan_to_num(0.0)


def basis_of(work: Workspace, names: Sequence[str], masks: Masks) -> Projections:
    """Return projections on directions of the model sent."""
    groups = _grouped(names, work.auxiliary.num_classes)
    directions = work.part(directions_of, tuple(names)).masked(masks)
    means = {n: value - value.mean(dim=0) for n, value in directions.means.items()}
    turns = [_turn([means[name] for name in group]) for group in groups]
    return Projections(groups, masks, directions, (*turns, _turn(directions.rest.values())))


def _turn(rows: Iterable[Float[Tensor, "directions _"]]) -> Float[Tensor, "directions dims"]:
    """Return what turns products with rows into coordinates in an orthonormal basis of them."""
    values, vectors = torch.linalg.eigh(_sum(each.double() @ each.T.double() for each in rows))
    kept = values > FEWEST * values.amax().clamp(min=1e-300)
    return vectors[:, kept] / values[kept].sqrt()


def _grouped(names: Sequence[str], classes: int) -> Groups:
    """Return the last tensors one by one and the others together, as many as a sketch holds."""
    alone = min(len(names), max(1, DIMENSIONS // max(1, classes - 1))) - 1
    return (*((name,) for name in names[:alone]), tuple(names[alone:]))


def directions_of(work: Workspace, names: tuple[str, ...]) -> Directions:
    """Return the directions of the model sent, in these tensors: a part of the workspace."""
    labels, means = labelled(work)[1], class_means(work, names)
    room = LARGEST // sum(value.shape[1] for value in means.values())
    some = torch.randperm(len(labels), generator=generator(0, "directions"))
    spent = some[: min(REST, room, len(labels) // 4)]
    rows = example_rows(work, work.sent, spent, names)
    rest = {name: value - means[name][labels[spent]] for name, value in rows.items()}
    return Directions(means, rest, spent)


def start_shares(work: Workspace, groups: Groups) -> tuple[Products, Float[Tensor, " n"]]:
    """Return the shares at the model sent, which all clients have in common.

    A part of the workspace.
    """
    basis = basis_of(work, [name for group in groups for name in group], {})
    return _shares(work, basis, [work.sent], [1.0])


def _shares(
    work: Workspace, basis: Projections, states: Sequence[Params], weights: Sequence[float]
) -> tuple[Products, Float[Tensor, " n"]]:
    """Return every auxiliary example's products, and its squared norm.

    An example's product with its own class's mean leaves itself out of that mean: with few
    auxiliary examples a class it would otherwise resemble its own class more than a client's does.
    """
    labels, means = labelled(work)[1], basis.directions.means
    counts = torch.bincount(labels, minlength=work.auxiliary.num_classes).double()
    numbers = sum(value.shape[1] for value in means.values())
    size = max(1, min(len(labels), CHUNK // (numbers * (1 + (len(states) > 1)))))
    parts, energies = list[Products](), list[Tensor]()
    for places in torch.arange(len(labels)).split(size):
        first, mean = dict[str, Tensor](), dict[str, Tensor]()
        for state, weight in zip(states, weights, strict=True):
            each = example_rows(work, state, places, means)
            each = {n: v * basis.masks[n] if basis.masks else v for n, v in each.items()}
            first = first or each
            mean = {n: weight * v + (mean[n] if mean else 0) for n, v in each.items()}
        products = basis.products(mean)
        own = [_sum((mean[n] * first[n]).sum(dim=1).double() for n in g) for g in basis.groups]
        _leave_out(products.means, torch.stack(own, dim=1), labels[places], counts)
        parts.append(products)
        energies.append(_sum(value.double().square().sum(dim=1) for value in mean.values()))
    whole = Products(torch.cat([p.means for p in parts]), torch.cat([p.rest for p in parts]))
    return whole, torch.cat(energies)


def _leave_out(
    products: Float[Tensor, "n groups classes"],
    own: Float[Tensor, "n groups"],
    labels: Int[Tensor, " n"],
    counts: Float[Tensor, " classes"],
) -> None:
    """Take each example out of its own class's mean, in place; a class of one stays."""
    rows, many = torch.arange(len(labels)), counts[labels].unsqueeze(1)
    among = products[rows, :, labels]
    without = (many * among - own) / (many - 1).clamp(min=1)
    products[rows, :, labels] = torch.where(many > 1, without, among)


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(dim=0)
