"""Clients rehearsed with auxiliary examples, on which ways of matching are tried."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.inversion.problems import Problem, problem_of
from adversary.rehearsal import Examples, defended, rehearse_each
from adversary.workspace import Workspace, working_copy
from fedsim.core.rng import generator as derived
from fedsim.core.types import Observation, Update

VICTIMS = 3  # rehearsed clients


def rehearsed_victims(
    work: Workspace, size: int, count: int, *, first: int = 0
) -> list[tuple[Problem, Float[Tensor, "n *shape"], Int[Tensor, " n"]]]:
    """Return what an attacker sees of each rehearsed client, its examples and their labels.

    Args:
        work: With auxiliary inputs and labels; clients have the defense that the adversary knows.
        size: Examples of each client.
        count: How many clients.
        first: The number of the first; others of the same number are the same.
    """
    auxiliary = work.auxiliary
    inputs, labels = auxiliary.inputs, auxiliary.labels
    assert inputs is not None
    assert labels is not None
    clients = list[Examples]()
    for place in range(first, first + count):
        rows = torch.randperm(len(labels), generator=derived(0, "reconstructed", place))[:size]
        rows = rows.repeat(-(-size // len(rows)))[:size]
        rows = rows[labels[rows].argsort()]
        stream = derived(0, "reconstructed", place, "train")
        clients.append((inputs[rows], labels[rows], stream))
    like = Observation(work.sent, Update(1, "shadow", {}, size), work.local)
    model, defense = work.lasting(working_copy), auxiliary.defense
    hook = defense if defense is not None and defense.gradient is not None else None
    uploads, victims = rehearse_each(like, auxiliary, model, clients, defense=hook), []
    for place, (upload, (x, y, _)) in enumerate(zip(uploads, clients, strict=True), first):
        if defense is not None:
            coins = derived(0, "reconstructed", place, "defense")
            upload = defended(upload, auxiliary, coins)  # noqa: PLW2901
        victims.append((problem_of(upload, auxiliary), x, y))
    return victims


def nearest_error(guess: Float[Tensor, "n *shape"], inputs: Float[Tensor, "n *shape"]) -> float:
    """Return the mean squared error of each example's nearest guess."""
    apart = torch.cdist(inputs.flatten(1).double(), guess.flatten(1).double()).square()
    return float(apart.amin(dim=1).mean()) / inputs[0].numel()
