"""What updates are projected on, and every auxiliary example's share of an update in that.

Directions are what the classes' mean gradients differ in, tensor by tensor from the last one back,
and the gradients of some auxiliary examples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adversary.labels.gradients import class_means, example_rows, labelled
from adversary.workspace import Workspace
from fedsim.core.rng import generator
from fedsim.core.types import Params

LARGEST = 2**27  # numbers in all classes' mean gradients: of larger models the last tensors
DIMENSIONS = 150  # of a sketch along the means, where classes leave more than one group
REST = 60  # examples whose own gradients are directions too, a quarter of all at most
CHUNK = 2**25  # numbers in the gradients of the examples that are looked at together
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
    return shares(work, basis, [work.sent], [1.0])


def shares(
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
        lengths = [_sum((mean[n] * first[n]).sum(dim=1).double() for n in g) for g in basis.groups]
        _leave_out(products.means, torch.stack(lengths, dim=1), labels[places], counts)
        parts.append(products)
        energies.append(_sum(value.double().square().sum(dim=1) for value in mean.values()))
    whole = Products(torch.cat([p.means for p in parts]), torch.cat([p.rest for p in parts]))
    return whole, torch.cat(energies)


def _leave_out(
    products: Float[Tensor, "n groups classes"],
    lengths: Float[Tensor, "n groups"],
    labels: Int[Tensor, " n"],
    counts: Float[Tensor, " classes"],
) -> None:
    """Take each example out of its own class's mean, in place; a class of one stays."""
    rows, many = torch.arange(len(labels)), counts[labels].unsqueeze(1)
    among = products[rows, :, labels]
    without = (many * among - lengths) / (many - 1).clamp(min=1)
    products[rows, :, labels] = torch.where(many > 1, without, among)


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(dim=0)
