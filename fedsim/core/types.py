"""What an adversary sees and what it knew before: the types that attacks and defenses take."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from fedsim.core.devices import CPU
from fedsim.core.form import Kind, kind_of
from fedsim.core.local_training import LocalTraining, Upload  # noqa: F401 (others take it here)
from fedsim.core.memory import Memory
from fedsim.core.rehearsals import Rehearsals
from fedsim.core.schema import Schema
from fedsim.core.secrets import Encoding, Rules
from fedsim.core.vocabulary import Vocabulary

Params = Mapping[str, Tensor]
"""Name → tensor in `state_dict` order; may read its tensors from a file when asked for them."""


@dataclass(frozen=True)
class Update:
    """What one client gave away in one round, after its defenses.

    Under secure aggregation the server sees a cohort instead: `num_clients` times their mean
    weighted by examples (of equal clients the sum), and the numbers of examples are summed.

    Attributes:
        round: From 1.
        client: The identity of the client (or the cohort), stable over rounds.
        delta: Trained − sent weights; with `upload="gradient"` the gradient itself.
        num_examples: The client's own count of its examples, as uploaded; None where it told none.
        num_clients: How many clients were summed.
    """

    round: int
    client: str
    delta: Params
    num_examples: int | None
    num_clients: int = 1


@dataclass(frozen=True, eq=False)
class Observation:
    """All that a curious server knows of one client in one round."""

    sent: Params
    update: Update
    local: LocalTraining


@dataclass(frozen=True)
class View:
    """The observations of one client, oldest first; never empty.

    Attributes:
        observations: Its own.
        cohorts: For each of them, those of every client of that round, this one's included; one
            object for all views of a round. Empty where other clients are not seen.
        memory: What attacks compute once; views that share it share that.
        names: For each observation, what stands for it and all before it in the run's memory, so
            that they need not be read again: of equal names observations are equal. Empty where
            only reading them tells.
        cohort_names: For each cohort, what stands for it in the run's memory, as `names` do. Empty
            where only reading its updates tells.
    """

    observations: Sequence[Observation]
    cohorts: Sequence[Sequence[Observation]] = ()
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)
    names: Sequence[Hashable] = field(default=(), repr=False, compare=False)
    cohort_names: Sequence[Hashable] = field(default=(), repr=False, compare=False)

    @cached_property
    def latest(self) -> Observation:
        """The observation of the round under attack."""
        return self.observations[-1]

    @property
    def cohort(self) -> Sequence[Observation]:
        """The observations of the round under attack, of every client."""
        return self.cohorts[-1] if self.cohorts else ()

    def until(self, place: int) -> "View":
        """Return the view as it was when its observation at `place` was the latest, by itself."""
        some = slice(place, place + 1)
        cohorts, names = self.cohorts[some], self.cohort_names[some]
        return View([self.observations[place]], cohorts, self.memory, cohort_names=names)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A guess of numbers that says how uncertain each of them is.

    Attributes:
        values: The guess.
        uncertainty: Of the same shape, from 0, which is certain; comparable within one guess.
    """

    values: Tensor
    uncertainty: Tensor


@dataclass(frozen=True)
class Candidates:
    """Records of which the adversary asks whether a client trained on them.

    Attributes:
        inputs: Shape (m, *input_shape).
        labels: What the loss takes, shape (m,); of a language model its targets, shape (m, t).
    """

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Ranges:
    """Sets of records; the adversary asks of each whether a client trained on a record in it.

    A record is in a range if it has the range's label and every entry is within the bounds. An
    entry that the adversary does not know has the bounds of the data.

    Attributes:
        low: Smallest value of each entry, shape (m, *input_shape).
        high: Largest value of each entry, shape (m, *input_shape).
        labels: Shape (m,).
    """

    low: Tensor
    high: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Sets:
    """A set of records for each client; the adversary asks how many of them the client used.

    Attributes:
        inputs: Of all sets, shape (m, *input_shape).
        labels: Shape (m,).
        rows: Client → the rows of its set.
        expected: Client → how many of them it uses in a round on average, as sets are drawn.
    """

    inputs: Tensor
    labels: Tensor
    rows: Mapping[str, Tensor]
    expected: Mapping[str, float]


class KnownDefense(Protocol):
    """What an adversary that knows the clients' defense calls of it; `defenses.defense.Defense`."""

    @property
    def init(self) -> Callable[[Params], dict[str, Tensor]]:
        """Parameters → the state before the first round."""
        ...

    @property
    def apply(
        self,
    ) -> Callable[
        [Params, dict[str, Tensor], Generator], tuple[dict[str, Tensor], dict[str, Tensor]]
    ]:
        """(update, state, generator) → (defended update, new state)."""
        ...

    @property
    def gradient(
        self,
    ) -> (
        Callable[[nn.Module, Params, Tensor, Tensor, LocalTraining, Generator], Sequence[Tensor]]
        | None
    ):
        """Replaces the batch gradient, for a defense inside training."""
        ...

    @property
    def batches(self) -> Callable[[int, LocalTraining, Generator], list[Tensor]] | None:
        """Replaces the shuffled batches of every epoch."""
        ...


@dataclass(frozen=True, eq=False)
class Auxiliary:
    """What the adversary knew before round 1.

    Attributes:
        model: The architecture; its current weights mean nothing.
        num_classes: Number of labels.
        inputs: Auxiliary examples, disjoint from all clients' data; None without any.
        labels: What the loss on them takes: their labels, shape (n,), or the targets of a language
            model, shape (n, t), −100 where there is none.
        defense: The clients' defenses; given to an adaptive adversary only.
        input_shape: Shape of one example, as the architecture takes it; that of `inputs` without.
        candidates: Records whose membership is in question; None where no attack asks.
        ranges: Sets of records, any of which may be a member; None where no attack asks.
        sets: A set of records for each client, of which it may have used some; None where no
            attack asks.
        marks: Family of secrets → a mark per auxiliary example, shape (n,): 1 where it has the
            property, or which user's it is, −1 for nobody's; None where no attack asks.
        rules: What those secrets leave open.
        encoding: How the attribute stands in the inputs; None where it does not.
        schema: What each input of a record stands for; None where the data set does not declare it.
        vocabulary: What token ids stand for; None where inputs are no tokens.
        canaries: Texts one of which a client may hold, with their targets; None where no attack
            asks.
        per_token: Whether there is a target at each position, the next token.
        rehearsals: How it rehearses clients.
        device: Where it runs the model; its tensors are on the CPU.
    """

    model: nn.Module
    num_classes: int
    _: KW_ONLY
    inputs: Tensor | None = None
    labels: Tensor | None = None
    defense: KnownDefense | None = None
    input_shape: tuple[int, ...] | None = None
    candidates: Candidates | None = None
    ranges: Ranges | None = None
    sets: Sets | None = None
    marks: Mapping[str, Tensor] | None = None
    rules: Rules | None = None
    encoding: Encoding | None = None
    schema: Schema | None = None
    vocabulary: Vocabulary | None = None
    canaries: Candidates | None = None
    per_token: bool = False
    rehearsals: Rehearsals = field(default_factory=Rehearsals, repr=False)
    device: torch.device = CPU

    @property
    def kind(self) -> Kind:
        """What the model takes and gives in one word."""
        return kind_of(self.vocabulary, per_token=self.per_token)
