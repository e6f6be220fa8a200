"""The games: which secret is drawn, and which records a client then trains on.

Secrets are balanced. Records come from one pool; the challenger's and the adversary's are disjoint.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.games import ceilings

UNEVEN = 4.0  # exponent of labels' weights, at most
BATCH = ("inputs", "labels")


@dataclass(frozen=True)
class Encoding:
    """How a sensitive attribute stands in a record's inputs.

    Attributes:
        columns: Which of the input's features, shape (c,).
        absent, present: Their values for a = 0 and a = 1, shape (c,).
    """

    columns: Int[Tensor, " c"]
    absent: Float[Tensor, " c"]
    present: Float[Tensor, " c"]

    def put(self, inputs: Float[Tensor, "n d"], secret: Int[Tensor, " n"]) -> Tensor:
        """Return copies of records with the attribute set."""
        inputs = inputs.clone()
        inputs[:, self.columns] = torch.where(secret[:, None] == 1, self.present, self.absent)
        return inputs


@dataclass(frozen=True)
class Pool:
    """Records that one party draws from.

    Attributes:
        inputs: Shape (n, *shape).
        labels: Shape (n,).
        marks: 1 where a record has the attribute or property; in the game of users, who it is of.
        encoding: How to set the attribute, where it is an input.
        weights: How often each record is drawn, up to a constant, shape (n,); None for evenly.
    """

    inputs: Tensor
    labels: Int[Tensor, " n"]
    marks: Int[Tensor, " n"]
    encoding: Encoding | None = None
    weights: Tensor | None = None

    @property
    def prior(self) -> float:
        """The share of records with the attribute."""
        return float(self.marks.double().mean())

    def drawn(self, count: int, generator: Generator, *, mark: int | None = None) -> Tensor:
        """Return places of random records, or of random ones with a mark; with repetition.

        Raises:
            ValueError: There is none.
        """
        there = torch.arange(len(self.marks))
        there = there if mark is None else there[self.marks == mark]
        if not len(there):
            raise ValueError(
                "pool: must hold records with and without the property, got none of one"
            )
        if self.weights is None:
            return there[torch.randint(len(there), (count,), generator=generator)]
        if not count:
            return there[:0]
        chosen = torch.multinomial(self.weights[there], count, True, generator=generator)
        return there[chosen]


@dataclass(frozen=True)
class Trials:
    """What clients train on, and what the secrets are.

    Attributes:
        inputs: Shape (n, batch, *shape).
        labels: Shape (n, batch).
        secrets: Shape (n,), classes of the game.
        targets: The record in question with the attribute absent and present, shape
            (n, 2, *shape), or as it is, (n, 1, *shape); None where no record is in question.
        asked: The label of the record in question, shape (n,).
        clients: Each trial is of as many clients in turn, with batch / clients records each.
    """

    inputs: Tensor
    labels: Int[Tensor, "n batch"]
    secrets: Int[Tensor, " n"]
    targets: Tensor | None = None
    asked: Int[Tensor, " n"] | None = None
    clients: int = 1


@dataclass(frozen=True)
class Rules:
    """What a game leaves open.

    Attributes:
        batch: Records per update, at least 1.
        shares: P(a = 1) under each secret of the distributional game.
        count: Records with the property, in the game of properties.
        own: Share of the user's own records, in the game of users.
        users: How many there are.
    """

    batch: int
    shares: tuple[float, ...] = (0.3, 0.7)
    count: int = 1
    own: float = 1.0
    users: int = 2


Sampler = Callable[[Pool, Rules, Int[Tensor, " n"], Generator], Trials]


@dataclass(frozen=True)
class Game:
    """One game.

    Attributes:
        name: In short.
        sample: (pool, rules, secrets, generator) → trials.
        summary: One line.
        classes: How many secrets there are.
        ceiling: (rules, P(a = 1)) → the largest AUROC of any adversary; for games whose secret
            acts through the number of records with the property, of one that reads it exactly.
        information: The same in bits about the secret.
        asks: Whether a record is in question, which the adversary knows.
    """

    name: str
    sample: Sampler
    summary: str
    classes: Callable[[Rules], int] = lambda rules: 2  # noqa: ARG005
    ceiling: Callable[[Rules, float], float] = lambda rules, prior: 1.0  # noqa: ARG005
    information: Callable[[Rules, float], float] | None = None
    asks: bool = False

    def bits(self, rules: Rules, prior: float) -> float:
        """Return the most that any adversary can learn of the secret, in bits."""
        if self.information is not None:
            return self.information(rules, prior)
        return math.log2(self.classes(rules))


def secrets(count: int, classes: int, generator: Generator) -> Int[Tensor, " n"]:
    """Return as many of each class as can be, in random order."""
    return (torch.arange(count) % classes)[torch.randperm(count, generator=generator)]


def _trials(pool: Pool, rows: Int[Tensor, "n batch"], wanted: Tensor) -> Trials:
    return Trials(pool.inputs[rows], pool.labels[rows], wanted)


def with_label_skew(sample: Sampler) -> Sampler:
    """Let every trial draw its records with label shares of its own.

    Clients of a federation differ in their labels; an adversary that has never seen such clients
    takes their labels for the secret. How uneven the shares are is drawn too, from even on.
    """

    def skewed(pool: Pool, rules: Rules, wanted: Tensor, generator: Generator) -> Trials:
        classes, trials = int(pool.labels.max()) + 1, []
        for secret in wanted.split(1):
            uneven = UNEVEN * torch.rand(1, generator=generator)
            shares = torch.rand(classes, generator=generator).pow(uneven) + 1e-3
            part = replace(pool, weights=shares[pool.labels])
            trials.append(sample(part, rules, secret, generator))
        inputs, labels = (torch.cat([getattr(t, name) for t in trials]) for name in BATCH)
        return Trials(inputs, labels, wanted)

    return skewed


def attribute(pool: Pool, rules: Rules, wanted: Tensor, generator: Generator) -> Trials:
    """The first record has the attribute or has not; the others are anyone's."""
    rows = pool.drawn(len(wanted) * rules.batch, generator).view(len(wanted), rules.batch)
    for mark in (0, 1):
        chosen = wanted == mark
        rows[chosen, 0] = pool.drawn(int(chosen.sum()), generator, mark=mark)
    return _trials(pool, rows, wanted)


def known_record(pool: Pool, rules: Rules, wanted: Tensor, generator: Generator) -> Trials:
    """The attribute of the first record, anyone's, is set by a fair coin: the counterfactual."""
    if pool.encoding is None:
        raise ValueError("column: must be a model input to be set in a known record, got none")
    rows = pool.drawn(len(wanted) * rules.batch, generator).view(len(wanted), rules.batch)
    trials = _trials(pool, rows, wanted)
    first = trials.inputs[:, 0]
    both = [pool.encoding.put(first, torch.full_like(wanted, mark)) for mark in (0, 1)]
    trials.inputs[:, 0] = pool.encoding.put(first, wanted)
    return replace(trials, targets=torch.stack(both, dim=1), asked=trials.labels[:, 0])


def property_(pool: Pool, rules: Rules, wanted: Tensor, generator: Generator) -> Trials:
    """Some records of the batch have the property, or none has."""
    if rules.count > rules.batch:
        raise ValueError(f"count: must be at most the batch size {rules.batch}, got {rules.count}")
    rows = pool.drawn(len(wanted) * rules.batch, generator, mark=0)
    rows, having = rows.view(len(wanted), rules.batch), wanted == 1
    some = pool.drawn(int(having.sum()) * rules.count, generator, mark=1)
    rows[having, : rules.count] = some.view(-1, rules.count)
    return _trials(pool, rows, wanted)


def distribution(pool: Pool, rules: Rules, wanted: Tensor, generator: Generator) -> Trials:
    """Each record has the attribute with the probability that the secret names."""
    shares = torch.tensor(rules.shares)[wanted]
    marked = torch.rand(len(wanted), rules.batch, generator=generator) < shares[:, None]
    rows = pool.drawn(marked.numel(), generator, mark=0).view_as(marked)
    rows[marked] = pool.drawn(int(marked.sum()), generator, mark=1)
    return _trials(pool, rows, wanted)


def user(pool: Pool, rules: Rules, wanted: Tensor, generator: Generator) -> Trials:
    """A share of the records is of the user that the secret names, the rest is anyone's."""
    rows = pool.drawn(len(wanted) * rules.batch, generator).view(len(wanted), rules.batch)
    own = torch.rand(len(wanted), rules.batch, generator=generator) < rules.own
    for who in range(rules.users):
        places = own & (wanted == who)[:, None]
        rows[places] = pool.drawn(int(places.sum()), generator, mark=who)
    return _trials(pool, rows, wanted)


def member(pool: Pool, rules: Rules, wanted: Tensor, generator: Generator) -> Trials:
    """The record in question is the first of the batch, or another one is in its place."""
    rows = pool.drawn(len(wanted) * (rules.batch + 1), generator)
    rows = rows.view(len(wanted), rules.batch + 1)
    asked = rows[:, 0]
    rows = torch.where((wanted == 1)[:, None], rows[:, :-1], rows[:, 1:])
    trials = _trials(pool, rows, wanted)
    return replace(trials, targets=pool.inputs[asked][:, None], asked=pool.labels[asked])


def source(pool: Pool, rules: Rules, wanted: Tensor, generator: Generator) -> Trials:
    """One of several clients holds the record in question, first in its batch."""
    rows = pool.drawn(len(wanted) * rules.users * rules.batch, generator)
    rows = rows.view(len(wanted), rules.users, rules.batch)
    asked = rows[torch.arange(len(wanted)), wanted, 0]
    trials = _trials(pool, rows.flatten(1), wanted)
    return replace(
        trials, targets=pool.inputs[asked][:, None], asked=pool.labels[asked], clients=rules.users
    )


def _attribute_ceiling(rules: Rules, prior: float) -> float:
    return ceilings.count_auroc(*ceilings.attribute_counts(rules.batch, prior))


def _attribute_bits(rules: Rules, prior: float) -> float:
    return ceilings.count_information(ceilings.attribute_counts(rules.batch, prior))


def _share_ceiling(rules: Rules, prior: float) -> float:  # noqa: ARG001
    counts = ceilings.share_counts(rules.batch, rules.shares)
    whole = np.sum(counts, axis=0)
    rest = [(whole - own) / (len(counts) - 1) for own in counts]
    pairs = zip(rest, counts, strict=True)
    return sum(ceilings.count_auroc(others, own) for others, own in pairs) / len(counts)


def _share_bits(rules: Rules, prior: float) -> float:  # noqa: ARG001
    return ceilings.count_information(ceilings.share_counts(rules.batch, rules.shares))


GAMES: dict[str, Game] = {
    game.name: game
    for game in (
        Game(
            "attribute", attribute, "the attribute of one unknown record of the batch",
            ceiling=_attribute_ceiling, information=_attribute_bits,
        ),
        Game("attribute-known", known_record, "the attribute of a known record", asks=True),
        Game("property", property_, "whether any record of the batch has the property"),
        Game(
            "distribution", distribution, "which share of records has the property",
            classes=lambda rules: len(rules.shares),
            ceiling=_share_ceiling, information=_share_bits,
        ),
        Game("user", user, "whose records they are", classes=lambda rules: rules.users),
        Game("membership", member, "whether a known record was used", asks=True),
        Game(
            "source", source, "which client holds a known record", asks=True,
            classes=lambda rules: rules.users,
        ),
    )
}  # fmt: skip
