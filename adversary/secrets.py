"""Secrets that are one of a few classes: what is true, and what is likely beforehand."""

import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.games.predictors import LOWEST
from adversary.steps import num_labels
from fedsim.core.secrets import Rules
from fedsim.core.types import Auxiliary, View

SECRETS = ("property", "distribution", "user")


def secret_of(family: str, marks: Int[Tensor, " uses"], rules: Rules) -> int | None:
    """Return the class that is true of the examples that a client used; None where none is.

    Args:
        family: `property`: whether at least `rules.count` of them have it; `distribution`: which
            of `rules.shares` is nearest to theirs; `user`: whose most of them are.
        marks: Of every use of an example.
        rules: What the secret leaves open.
    """
    if family == "property":
        return int((marks == 1).sum() >= rules.count)
    if family == "distribution":
        share = marks.double().mean()
        return int((torch.tensor(rules.shares, dtype=torch.float64) - share).abs().argmin())
    users = marks[marks >= 0]
    return int(torch.bincount(users).argmax()) if len(users) else None


def prior(family: str, view: View, auxiliary: Auxiliary) -> Float[Tensor, " classes"]:
    """Return log p(class) as an adversary has it that looks at no update.

    Args:
        family: As for `secret_of`. A property: as often as that many records drawn like the
            auxiliary ones have it; a user: by the number of auxiliary records; a share: any alike.
        view: Tells the number of examples.
        auxiliary: With marks and rules.
    """
    assert auxiliary.marks is not None
    assert auxiliary.rules is not None
    marks, rules = auxiliary.marks[family], auxiliary.rules
    if family == "property":
        count = view.latest.update.num_examples
        size = 1 if count is None else num_labels(view.latest)
        share = float((marks == 1).double().mean())
        chance = float(scipy.special.bdtrc(rules.count - 1, size, share))
        classes = torch.tensor([1 - chance, chance], dtype=torch.float64)
    elif family == "user":
        classes = torch.bincount(marks[marks >= 0], minlength=rules.users).double()
    else:
        classes = torch.ones(len(rules.shares), dtype=torch.float64)
    classes = classes / classes.sum()
    lowest = 2 * LOWEST / len(classes)
    return ((1 - len(classes) * lowest) * classes + lowest).log()
