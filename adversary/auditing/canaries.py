"""Canaries: records that two neighbouring data sets are easiest told apart by.

Found by looking (natural), by changing one column at a time within its domain (in-domain), by
gradient ascent over any real inputs (free), or so that their gradient stands out from all others
(canife: S. Maddock, A. Sablayrolles, P. Stock, "CANIFE: crafting canaries for empirical privacy
measurement in federated learning", ICLR 2023, section 3). How far a crafted record's gradients are
apart is what an audit of a *record's* privacy depends on; a gradient that is chosen itself
(`stand_in`) audits the mechanism whatever the model.

*Differs from CANIFE*: a record is one example of a batch here, not of a client's data, its label is
searched over instead of learned, and its gradient is made long by the ascent on the clipped length.
"""

import copy
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from adversary.auditing.sensitivity import Question
from adversary.inversion.descent import Evaluate, adam
from fedsim.data.types import Dataset

STARTS = 6  # natural records that a search begins from
POINTS = 21  # of the grid of a numeric column
PASSES = 10  # over all columns, at most
STEPS, RATE = 400, 0.05  # of Adam, over real-valued inputs
OTHERS = 64  # records whose gradients a CANIFE sample stays clear of


Move = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A record and its label → records that differ from it in one thing, and their labels."""


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A record and how far it moves an update.

    Attributes:
        name: How it was found.
        inputs: One record, shape (*shape); the attribute in it means nothing.
        label: Its label, shape (); of a language model its next tokens, shape (T,).
        apart: Distance between the clipped gradients of its two values, or of none.
        mean: Of `apart` over all natural records that were looked at; None elsewhere.
    """

    name: str
    inputs: Tensor
    label: Tensor
    apart: float
    mean: float | None = None


@dataclass(frozen=True)
class Coordinate:
    """A column of a table, and the values that it may take.

    Attributes:
        columns: The input features that say it.
        choices: A row of them per value.
    """

    columns: Int[Tensor, " c"]
    choices: Float[Tensor, "k c"]


def natural(
    question: Question, inputs: Shaped[Tensor, "n *shape"], labels: Int[Tensor, "n *targets"]
) -> Canary:
    """Return the worst of real records."""
    apart = question.apart(inputs, labels)
    place = int(apart.argmax())
    return Canary(
        name="natural",
        inputs=inputs[place],
        label=labels[place],
        apart=float(apart[place]),
        mean=float(apart.mean()),
    )


def average(
    question: Question, inputs: Shaped[Tensor, "n *shape"], labels: Int[Tensor, "n *targets"]
) -> Canary:
    """Return the real record that moves an update as far as the mean of all does."""
    apart = question.apart(inputs, labels)
    place = int((apart - apart.mean()).abs().argmin())
    return Canary(
        name="average",
        inputs=inputs[place],
        label=labels[place],
        apart=float(apart[place]),
    )


def in_domain(
    question: Question,
    inputs: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    coordinates: Sequence[Coordinate],
    num_classes: int,
) -> Canary:
    """Ascend one column at a time, each over all its valid values, and the label.

    From the `STARTS` worst real records until no single change helps.
    """
    apart = question.apart(inputs, labels)
    starts = apart.topk(min(STARTS, len(apart))).indices
    moves = list(_moves(coordinates, num_classes))
    ends = [
        _climbed(question, moves, inputs[place], labels[place], float(apart[place]))
        for place in starts.tolist()
    ]
    return max(ends, key=lambda canary: canary.apart)  # the first of equals


def _climbed(
    question: Question, moves: Sequence[Move], inputs: Tensor, label: Tensor, apart: float
) -> Canary:
    """Change one record by the best of each move until no single change helps."""
    x, y, value = inputs.clone(), label, apart
    for _ in range(PASSES):
        before = value
        for move in moves:
            x_tried, y_tried = move(x, y)
            distances = question.apart(x_tried, y_tried)
            most = int(distances.argmax())
            if float(distances[most]) > value:
                x, y, value = x_tried[most], y_tried[most], float(distances[most])
        if value <= before * (1 + 1e-6):
            break
    return Canary(name="in-domain", inputs=x, label=y, apart=value)


def _moves(coordinates: Sequence[Coordinate], num_classes: int) -> Iterator[Move]:
    """Yield the ways to change a record: all its labels, then all values of each column."""

    def labels(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        return x.expand(num_classes, -1), torch.arange(num_classes)

    def values(coordinate: Coordinate, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        tried = x.expand(len(coordinate.choices), -1).clone()
        tried[:, coordinate.columns] = coordinate.choices.to(x.dtype)
        return tried, y.expand(len(tried))

    yield labels
    for coordinate in coordinates:
        yield partial(values, coordinate)


def coordinates_of(dataset: Dataset, without: str | None) -> list[Coordinate]:
    """Return the columns of a table: categories, and numbers on a grid over their range.

    Args:
        dataset: With categorical columns among its inputs.
        without: The attribute in question, which is left out.

    Raises:
        ValueError: It is no table.
    """
    if not dataset.attributes or dataset.inputs.ndim != 2:
        raise ValueError(
            "canary: must not be 'in-domain' for data without categorical columns, whose domain "
            "is not known; use 'free'"
        )
    attributes = dataset.attributes
    coded = {column for attribute in attributes.values() for column in attribute.columns}
    coordinates = [
        Coordinate(torch.tensor(attribute.columns), attribute.codes)
        for name, attribute in attributes.items()
        if name != without
    ]
    for column in range(dataset.inputs.shape[1]):
        if column not in coded:
            values = dataset.inputs[:, column]
            grid = torch.linspace(float(values.min()), float(values.max()), POINTS)
            coordinates.append(Coordinate(torch.tensor([column]), grid[:, None]))
    return coordinates


def free(
    question: Question,
    inputs: Float[Tensor, "n *shape"],
    labels: Int[Tensor, " n"],
    num_classes: int,
) -> Canary:
    """Ascend by Adam over real-valued inputs, from the worst real records with every label."""
    start, tried = _starts(question, inputs, labels, num_classes)

    def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = question.climb(points.unflatten(1, inputs.shape[1:]), tried)
        return -values, -slopes.flatten(1)

    return _ascended("free", question, evaluate, start, tried, inputs.shape[1:])


def canife(
    question: Question,
    inputs: Float[Tensor, "n *shape"],
    labels: Int[Tensor, " n"],
    num_classes: int,
    generator: Generator,
) -> Canary:
    """Ascend as `free`, with the gradient kept at right angles to those of other records.

    The loss is Σᵢ cos²(gᵢ, ∇ℓ(z)) over drawn records, less the clipped length in units of the clip.
    """
    drawn = torch.randperm(len(labels), generator=generator)[:OTHERS]
    others = question.gradients(inputs[drawn], labels[drawn]).detach()
    others = others / others.norm(dim=1, keepdim=True).clamp(min=1e-12)
    start, tried = _starts(question, inputs, labels, num_classes)
    unit = question.clip if question.clip < torch.inf else 1.0

    def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
        points = points.detach().requires_grad_()
        gradients = question.gradients(points.unflatten(1, inputs.shape[1:]), tried)
        length = gradients.square().sum(dim=1).add(1e-24).sqrt()
        overlap = (gradients @ others.T / length[:, None]).square().sum(dim=1)
        losses = overlap - (length / unit).clamp(max=1.0)
        (slopes,) = torch.autograd.grad(losses.sum(), points)
        return losses.detach(), slopes

    return _ascended("canife", question, evaluate, start, tried, inputs.shape[1:])


def _starts(
    question: Question, inputs: Tensor, labels: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return the worst records, flat, each once with every label."""
    apart = question.apart(inputs, labels)
    worst = inputs[apart.topk(min(STARTS, len(apart))).indices].flatten(1)
    every = torch.arange(num_classes).repeat(len(worst))
    return worst.repeat_interleave(num_classes, dim=0), every


def _ascended(
    name: str,
    question: Question,
    evaluate: Evaluate,
    start: Tensor,
    labels: Tensor,
    shape: Sequence[int],
) -> Canary:
    descent = adam(evaluate, start, steps=STEPS, lr=RATE)
    place = int(descent.losses.argmin())
    x = descent.points[place].unflatten(0, tuple(shape)).detach()
    apart = float(question.apart(x[None], labels[place : place + 1])[0])
    return Canary(name=name, inputs=x, label=labels[place], apart=apart)


def stand_in(model: nn.Module, direction: Mapping[str, Tensor], strength: float) -> nn.Module:
    """Return a model in which a record's gradient is what the auditor chose.

    It has the parameters of `model` and their names. Of a record whose first feature is x₁ and
    whose label is 0 the gradient is −x₁·strength·direction, at any weights: the defense clips and
    blurs it as any other, whatever the architecture. A record of zeros has none.

    Args:
        model: The architecture.
        direction: Trainable parameter → its part of a unit vector.
        strength: Length of the gradient of a record with x₁ = ±1.
    """
    double = copy.deepcopy(model)

    def forward(self: nn.Module, inputs: Tensor) -> Tensor:
        weights = dict(self.named_parameters())
        # 0 wherever the weights are, so that the gradient is the same in every local step.
        along = sum(
            ((weights[name] - weights[name].detach()) * direction[name]).sum() for name in direction
        )
        # At 0 cross-entropy of (logit, 0) with label 0 falls by half the logit.
        logit = 2 * strength * along * inputs.flatten(1)[:, 0]
        return torch.stack([logit, torch.zeros_like(logit)], dim=1)

    double._forward_pre_hooks.clear()  # it takes numbers, whatever the model takes
    double.forward = types.MethodType(forward, double)
    return double


def alternate(size: int) -> Float[Tensor, " n"]:
    """Return first features of records whose gradients by `stand_in` have alternate signs.

    They are size, 1 − size, size − 2, … times its strength: sums of neighbours are as long as that,
    and point the way of the first of them.
    """
    place = torch.arange(size)
    return -torch.where(place % 2 == 0, 1.0, -1.0) * (size - place)
