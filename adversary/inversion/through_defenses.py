"""Gradient matching by an adversary that knows the clients' defense.

fedsim's own. Nothing here knows any particular defense. Three ways to compare are tried on clients
rehearsed with auxiliary examples, each with several weights of the prior; the one that comes
nearest to those examples, which the attacker knows, is used on the client:

- `plain`: as an attacker would who knows of no defense;
- `survivors`: only entries that are not exactly zero in the upload are compared (pruned, frozen or
  quantised entries say nothing of the value that they had);
- `through`: the simulated upload goes through the defense too, and its gradient straight past it
  (Bengio, Léonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons",
  2013): what is matched is the upload that the client would have made. Signs are thereby pulled to
  the right side only, entries that should not have been kept are pushed down, lengths do not
  matter where they were clipped.

The weight of the prior grows with noise by the same choice.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.inversion.matching import match
from adversary.inversion.priors import data_range
from adversary.inversion.problems import Change, Problem
from adversary.inversion.rehearsed import VICTIMS, nearest_error, rehearsed_victims
from adversary.inversion.settings import Settings
from adversary.workspace import Workspace
from fedsim.core.params import norm
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary

ITERATIONS = 600  # of the rehearsed attacks, at most
PRIORS = (1.0, 10.0, 100.0)  # weights of the total variation, over the attack's own
MARGIN = 0.9  # share of the plain attack's error that another choice must stay below
WAYS = ("plain", "survivors", "through")


@dataclass(frozen=True)
class Choice:
    """What came nearest in rehearsals.

    Attributes:
        way: Of `WAYS`.
        tv: Weight of the total variation.
        errors: (way, weight) → mean squared error of the rehearsed guesses.
    """

    way: str
    tv: float
    errors: tuple[tuple[str, float, float], ...]


def adapt(problem: Problem, work: Workspace, settings: Settings) -> tuple[Problem, Settings]:
    """Return the problem and the settings, changed as worked best on rehearsed clients.

    Args:
        problem: What is matched.
        work: With auxiliary inputs, labels and the defense; without one nothing changes.
        settings: Of the attack that knows of no defense.
    """
    if work.auxiliary.defense is None:
        return problem, settings
    choice = work.part(choose, problem.shape[0], settings)
    return changed(problem, choice.way, work.auxiliary), replace(settings, tv=choice.tv)


def choose(work: Workspace, size: int, settings: Settings) -> Choice:
    """Attack rehearsed clients in every way, and return the one with the smallest error."""
    auxiliary, iterations = work.auxiliary, min(ITERATIONS, settings.iterations)
    levels = [settings.tv * factor for factor in PRIORS] if settings.tv else [0.0]
    victims = rehearsed_victims(work, size, VICTIMS)
    short = replace(settings, restarts=len(levels), group=0.0, iterations=iterations)
    images = len(victims[0][0].shape) == 4  # nothing else has a total variation
    box, weights = data_range(auxiliary), torch.tensor(levels) if images else None
    table: list[tuple[str, float, float]] = []
    for way in WAYS:
        errors = torch.zeros(len(levels))
        for place, (problem, inputs, labels) in enumerate(victims):
            compared, stream = (
                changed(problem, way, auxiliary),
                derived(0, "rehearsed attack", place),
            )
            guesses, _ = match(compared, short, labels, stream, box=box, weights=weights)
            errors += torch.tensor([nearest_error(guess, inputs) for guess in guesses]) / VICTIMS
        table += zip([way] * len(levels), levels, errors.tolist(), strict=True)
    way, tv, least = min(table, key=lambda row: row[2])
    if least > MARGIN * table[0][2]:
        way, tv, _ = table[0]
    return Choice(way, tv, tuple(table))


def way_of(problem: Problem) -> str:
    """Return in which of `WAYS` a problem is compared."""
    if problem.keep is not None:
        return "survivors"
    return "plain" if problem.change is None else "through"


def changed(problem: Problem, way: str, auxiliary: Auxiliary) -> Problem:
    """Return the problem as it is compared in one of `WAYS`."""
    if way == "survivors":
        return replace(problem, keep=(problem.observed != 0).any(dim=0).to(problem.observed.dtype))
    if way == "through":
        return replace(problem, change=straight_through(problem, auxiliary))
    return problem


def straight_through(problem: Problem, auxiliary: Auxiliary) -> Change:
    """Return the defense, of every row, whose derivative is taken for that of a rescaling.

    A defense that draws is drawn anew for every row, from one stream.
    """
    weights, defense = problem.model.weights, auxiliary.defense
    assert defense is not None
    stream = derived(0, "through the defense")

    def apply(row: Float[Tensor, " entries"]) -> Tensor:
        parts = (row * problem.unit).split([value.numel() for value in weights.values()])
        update = {n: p.view_as(w) for (n, w), p in zip(weights.items(), parts, strict=True)}
        upload, _ = defense.apply(update, defense.init(update), stream)
        length = norm(update)
        share = torch.tensor([float(norm(upload) / length) if float(length) else 1.0])
        entries = [value.flatten() for value in upload.values()]
        return torch.cat([*entries, share * problem.unit]) / problem.unit

    def change(simulated: Tensor) -> Tensor:
        with torch.no_grad():
            through = torch.stack([apply(row) for row in simulated.detach()]).to(simulated.dtype)
        through, share = through[:, :-1], through[:, -1:]
        return through + share * (simulated - simulated.detach())

    return change
