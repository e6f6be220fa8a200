"""Clients rehearsed with auxiliary examples, on which ways of matching are tried."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.inversion.problems import Problem, problem_of
from adversary.rehearsal import defended, rehearse_with
from adversary.workspace import Workspace, working_copy
from fedsim.core.rng import generator as derived
from fedsim.core.types import Observation, Update

VICTIMS = 3  # rehearsed clients


def rehearsed_victim(
    work: Workspace, size: int, place: int
) -> tuple[Problem, Float[Tensor, "n *shape"], Int[Tensor, " n"]]:
    """Return what an attacker sees of a rehearsed client, its examples and their labels.

    Args:
        work: With auxiliary inputs and labels; the client has the defense that the adversary knows.
        size: Examples of the client.
        place: Of the client among the rehearsed ones; decides which examples it has.
    """
    auxiliary = work.auxiliary
    inputs, labels = auxiliary.inputs, auxiliary.labels
    assert inputs is not None
    assert labels is not None
    name = ("reconstructed", place)
    rows = torch.randperm(len(labels), generator=derived(0, *name))[:size]
    rows = rows.repeat(-(-size // len(rows)))[:size]
    rows = rows[labels[rows].argsort()]
    like = Observation(work.sent, Update(1, "shadow", {}, size), work.local)
    model, stream = work.lasting(working_copy), derived(0, *name, "train")
    defense = auxiliary.defense
    hook = defense if defense is not None and defense.gradient is not None else None
    upload = rehearse_with(like, model, inputs[rows], labels[rows], stream, defense=hook)
    if defense is not None:
        upload = defended(upload, auxiliary, derived(0, *name, "defense"))
    return problem_of(upload, auxiliary), inputs[rows], labels[rows]


def nearest_error(guess: Float[Tensor, "n *shape"], inputs: Float[Tensor, "n *shape"]) -> float:
    """Return the mean squared error of each example's nearest guess."""
    apart = torch.cdist(inputs.flatten(1).double(), guess.flatten(1).double()).square()
    return float(apart.amin(dim=1).mean()) / inputs[0].numel()
