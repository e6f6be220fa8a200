"""What a game is: a secret, the records that a client then trains on, and what limits anybody."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.games.records import Pool
from fedsim.core.secrets import Rules

UNEVEN = 4.0  # exponent of labels' weights, at most


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What clients train on in many independent trials, and what the secrets are.

    Attributes:
        inputs: Shape (n, batch, *shape).
        labels: Shape (n, batch).
        secrets: Shape (n,), classes of the game.
        targets: The record in question with the attribute absent and present, shape
            (n, 2, *shape), or as it is, (n, 1, *shape); None if no record is in question.
        target_labels: The label of the record in question, shape (n,).
        clients: Each trial is of as many clients in turn, with batch / clients records each.
    """

    inputs: Tensor
    labels: Int[Tensor, "n batch"]
    secrets: Int[Tensor, " n"]
    targets: Tensor | None = None
    target_labels: Int[Tensor, " n"] | None = None
    clients: int = 1


Sampler = Callable[[Pool, Rules, Int[Tensor, " n"], Generator], Draws]
"""(pool, rules, secrets, generator) → what is drawn under these secrets."""


@dataclass(frozen=True, kw_only=True)
class Game:
    """One game.

    Attributes:
        name: In short.
        summary: One line.
        sample: Draws the records.
        classes: How many secrets there are.
        ceiling: (rules, P(a = 1)) → the largest AUROC of any adversary. If the secret acts through
            the number of records with the property: of one that reads this number exactly.
        information: The same in bits about the secret; None for all bits of the secret.
        merged_rounds: (rules, rounds) → the rules of a single round with the same ceiling; None if
            there is no closed form for so many rounds.
        has_target: Whether a record is in question, which the adversary knows.
        has_column: Whether the secret is read from a column of the data.
        single_record: Whether the secret changes a single record, as differential privacy's
            neighbours do.
    """

    name: str
    summary: str
    sample: Sampler
    classes: Callable[[Rules], int] = lambda rules: 2  # noqa: ARG005
    ceiling: Callable[[Rules, float], float] = lambda rules, prior: 1.0  # noqa: ARG005
    information: Callable[[Rules, float], float] | None = None
    merged_rounds: Callable[[Rules, int], Rules | None] = lambda rules, rounds: rules  # noqa: ARG005
    has_target: bool = False
    has_column: bool = True
    single_record: bool = False

    def bits(self, rules: Rules, prior: float) -> float:
        """Return the most that any adversary can learn of the secret, in bits."""
        if self.information is not None:
            return self.information(rules, prior)
        return math.log2(self.classes(rules))


def draw_secrets(count: int, classes: int, generator: Generator) -> Int[Tensor, " n"]:
    """Return as many secrets of each class as can be, in random order."""
    return (torch.arange(count) % classes)[torch.randperm(count, generator=generator)]


def draws_of(pool: Pool, rows: Int[Tensor, "n batch"], secrets: Int[Tensor, " n"]) -> Draws:
    """Return the records at some places of a pool, without any in question."""
    return Draws(inputs=pool.inputs[rows], labels=pool.labels[rows], secrets=secrets)


def with_label_skew(sample: Sampler) -> Sampler:
    """Let every trial draw its records with label shares of its own.

    Clients of a federation differ in their labels. An adversary that has never seen such clients
    takes their labels for the secret. How uneven the shares are is drawn too, from even on.
    """

    def skewed(pool: Pool, rules: Rules, secrets: Tensor, generator: Generator) -> Draws:
        classes, parts = int(pool.labels.max()) + 1, []
        for secret in secrets.split(1):
            uneven = UNEVEN * torch.rand(1, generator=generator)
            shares = torch.rand(classes, generator=generator).pow(uneven) + 1e-3
            weighted = replace(pool, weights=shares[pool.labels])
            parts.append(sample(weighted, rules, secret, generator))
        return Draws(
            inputs=torch.cat([part.inputs for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            secrets=secrets,
        )

    return skewed
