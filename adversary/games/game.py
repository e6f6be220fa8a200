"""What a game is: a secret, the records that a client then trains on, and what limits anybody."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Generator, Tensor

from adversary.games.records import Pool
from fedsim.core.secrets import Rules

UNEVEN = 4.0  # exponent of labels' weights, at most


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What clients train on in many independent trials, and what the secrets are.

    Attributes:
        inputs: Shape (n, batch, *shape).
        labels: Shape (n, batch); of a language model the next tokens, shape (n, batch, T).
        secrets: Shape (n,), classes of the game.
        targets: The record in question with the attribute absent and present, shape
            (n, 2, *shape), or as it is, (n, 1, *shape); None if no record is in question.
        target_labels: The label of the record in question, shape (n,), or its next tokens.
        clients: Each trial is of as many clients in turn, with batch / clients records each.
    """

    inputs: Tensor
    labels: Int[Tensor, "n batch *target"]
    secrets: Int[Tensor, " n"]
    targets: Tensor | None = None
    target_labels: Int[Tensor, "n *target"] | None = None
    clients: int = 1

    def part(self, rows: slice) -> "Draws":
        """Return some of the trials."""
        cut = lambda value: None if value is None else value[rows]
        return replace(
            self,
            inputs=self.inputs[rows],
            labels=self.labels[rows],
            secrets=self.secrets[rows],
            targets=cut(self.targets),
            target_labels=cut(self.target_labels),
        )

    @classmethod
    def joined(cls, parts: "Sequence[Draws]") -> "Draws":
        """Return the trials of several parts of one game, in order."""
        tall = {}
        for name in ("inputs", "labels", "secrets", "targets", "target_labels"):
            values = [getattr(part, name) for part in parts]
            tall[name] = None if values[0] is None else torch.cat(values)
        return cls(**tall, clients=parts[0].clients)


Sampler = Callable[[Pool, Rules, Int[Tensor, " n"], Generator], Draws]
"""(pool, rules, secrets, generator) → what is drawn under these secrets."""


@dataclass(frozen=True, eq=False)
class Shift:
    """How far two values of a secret are apart, in replaced records of one round.

    k records of one round are k apart. One record of each of R rounds is √R apart: Gaussian
    mechanisms compose so (Dong, Roth, Su, corollary 3.3).

    Attributes:
        sizes: Distances, shape (n,).
        chances: Of each, adding up to 1, shape (n,).
    """

    sizes: NDArray[np.float64]
    chances: NDArray[np.float64]

    @classmethod
    def of(cls, records: int, rounds: int) -> "Shift":
        """Return the distance of as many records replaced in each round."""
        return cls(np.array([records * rounds**0.5]), np.ones(1))

    def is_one_record(self, rounds: int) -> bool:
        """Return whether it is of one record in each round, as neighbours are."""
        return len(self.sizes) == 1 and bool(self.sizes[0] == rounds**0.5)


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
        shift: (rules, rounds) → how far the secret moves all rounds' uploads together, in
            replaced records of one round; None where this is not known.
        impute: (log p(record | mark), shape (n, batch, marks); rules) → scores of the secret, shape
            (n, classes), of who reads the records without the secret column; None where records
            do not say the secret: a fair coin sets it.
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
    shift: Callable[[Rules, int], Shift] | None = None
    impute: Callable[[Tensor, Rules], Tensor] | None = None

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
