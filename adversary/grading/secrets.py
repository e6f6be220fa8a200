"""Grades of secrets: an attribute per candidate, and the class of a property, a share, a user."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from adversary.carried import carried
from adversary.games import scores
from adversary.secrets import prior
from adversary.steps import keeps_data
from fedsim.core.ground_truth import Truth
from fedsim.core.types import Auxiliary, View


def grade_attributes(guess: Tensor, truth: Truth) -> dict[str, float]:
    """Grade log-odds of an attribute, over the candidates that the client used.

    Args:
        guess: Shape (m,).
        truth: With members and attributes.

    Returns:
        `auroc`: NaN where all of them have it, or none; `accuracy`: of odds above one, ties half.
    """
    if truth.members is None or truth.attributes is None or not bool(truth.members.any()):
        return {"auroc": math.nan, "accuracy": math.nan}
    odds, secret = guess[truth.members].double(), truth.attributes[truth.members]
    right = torch.where(odds == 0, 0.5, ((odds > 0) == secret).double())
    return {"auroc": scores.auroc(odds, secret).value, "accuracy": float(right.mean())}


class Secrets:
    """The functions of one such family."""

    def __init__(self, name: str) -> None:
        self.name = name

    def blind(self, view: View, auxiliary: Auxiliary, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return the prior's log-probabilities."""
        return prior(self.name, view, auxiliary)

    def blind_so_far(self, view: View, auxiliary: Auxiliary, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return the prior's log-probabilities for all that the client has used so far."""
        latest = prior(self.name, view, auxiliary)
        if self.name != "property" or keeps_data(view.latest):
            return latest

        def add(before: Tensor | None, single: View) -> Tensor:
            none = prior(self.name, single, auxiliary)[0]
            return none if before is None else before + none

        none = carried(view, (prior, auxiliary), add)
        assert none is not None  # there is the latest round
        return torch.stack([none, torch.log(-torch.expm1(none))])

    def grade(self, guess: Tensor, truth: Truth) -> dict[str, float]:
        """Grade log-probabilities of the classes, shape (classes,).

        Returns:
            `accuracy`: 1 where the likeliest class is true, ties share.
            `bits`: log₂ of the true class's probability, plus log₂ of the number of classes: what
            of the secret has been told, from nothing known on; negative where it misleads.
            NaN where no class is true.
        """
        secret = truth.secrets.get(self.name)
        if secret is None:
            return {"accuracy": math.nan, "bits": math.nan}
        best = guess == guess.max()
        return {
            "accuracy": float(best[secret]) / float(best.sum()),
            "bits": float(guess[secret]) / math.log(2) + math.log2(len(guess)),
        }

    def pool(self, guesses: Sequence[Any], truths: Sequence[Truth]) -> dict[str, float]:
        """Return `auroc` over the clients of a round; NaN where all have the same secret."""
        pairs = zip(guesses, truths, strict=True)
        graded = [(g, t.secrets[self.name]) for g, t in pairs if self.name in t.secrets]
        if not graded:
            return {"auroc": math.nan}
        stacked, secrets = torch.stack([g for g, _ in graded]), torch.tensor([s for _, s in graded])
        return {"auroc": scores.macro_auroc(stacked.log_softmax(dim=1), secrets).value}

    def ceiling(self, truths: Sequence[Truth]) -> dict[str, float]:  # noqa: ARG002
        """Return what no attack can exceed."""
        return {"accuracy": 1.0, "auroc": 1.0}
