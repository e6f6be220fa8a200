"""Source inference: which client used a record, and what its label alone says of that.

H. Hu, Z. Salcic, L. Sun, G. Dobbie, X. Zhang, "Source inference attacks in federated learning",
ICDM 2021. Clients differ in their labels, so that who knows how many labels of each class every
client has names the right one far more often than by chance. That guess is the blind one here.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attacks.eb_gls import eb_gls
from adversary.attacks.llg import llg
from adversary.grading.membership import grade_members
from fedsim.core.ground_truth import Truth
from fedsim.core.types import Auxiliary, View


def blind_sources(view: View, auxiliary: Auxiliary, generator: Generator) -> Float[Tensor, " m"]:
    """Score each candidate by how many labels of its class this client has, by a label attack.

    The adversary's own: EB-GLS where it has auxiliary data, else LLG. It looks at the update for
    its labels and for nothing else. All alike where labels cannot be read from it.
    """
    candidates = auxiliary.candidates
    if candidates is None:
        return torch.zeros(0, dtype=torch.float64)
    attack = llg if auxiliary.inputs is None or auxiliary.labels is None else eb_gls
    try:
        counts = attack(view, auxiliary, generator).double()
    except ValueError:
        return torch.zeros(len(candidates.labels), dtype=torch.float64)
    return counts[candidates.labels]


def grade_sources(guess: Tensor, truth: Truth) -> dict[str, float]:
    """Grade whether this client's candidates score above other clients' of the same class.

    Args:
        guess: A score per candidate, higher where this client is a likelier source, shape (m,).
        truth: With members, classes and users.

    Returns:
        `auroc`: as for membership, among the candidates that exactly one client of the round used.
    """
    if truth.members is None or truth.classes is None or truth.users is None:
        return {"auroc": math.nan}
    unique = truth.users == 1
    among = replace(truth, members=truth.members[unique], classes=truth.classes[unique])
    return {"auroc": grade_members(guess[unique], among)["auroc"]}


def pool_sources(guesses: Sequence[Tensor], truths: Sequence[Truth]) -> dict[str, float]:
    """Grade who is named as the source of each candidate that exactly one client used.

    Args:
        guesses: A score per candidate of every client, higher for a likelier source.
        truths: With members, classes and users.

    Returns:
        `accuracy`: the share of candidates whose client has the highest score; of k clients that
        share it, each is named with probability 1/k.
        `label_accuracy`: what the clients' true label counts alone would get in the same way,
        whatever the guess.
        Both are NaN where there are fewer than two clients or no such candidate.
    """
    undefined = {"accuracy": math.nan, "label_accuracy": math.nan}
    columns = [(truth.members, truth.users, truth.classes) for truth in truths]
    if len(columns) < 2 or any(value is None for values in columns for value in values):
        return undefined
    members, users, classes = (torch.stack(values) for values in zip(*columns, strict=True))  # type: ignore[arg-type]
    graded = (users[0] == 1) & members.any(dim=0)
    if not graded.any():
        return undefined
    size = int(classes.max()) + 1
    counts = [torch.bincount(truth.labels, minlength=size)[classes[0, graded]] for truth in truths]
    source = members[:, graded]
    return {
        "accuracy": _named(torch.stack(list(guesses))[:, graded], source),
        "label_accuracy": _named(torch.stack(counts), source),
    }


def _named(scores: Tensor, source: Tensor) -> float:
    """Return the mean probability of the source among the clients with the highest score."""
    best = scores == scores.max(dim=0).values
    return float(((best & source).sum(dim=0).double() / best.sum(dim=0)).mean())
