"""What a client is asked, what it has accepted, and what it answers. Flower is not in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from clients.operator import Operator
from clients.site import Site
from defenses.defense import Batches
from defenses.promise import Relation
from fedsim.core.rng import generator
from fedsim.core.sgd import shuffled
from fedsim.core.types import LocalTraining, Params
from fedsim.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a client is asked to do, and what it remembers.

    Attributes:
        site: The run at this client, as its operator allows it.
        operator: The node's own settings.
        sent: The global state, buffers included.
        round: Number of the round, from 1.
        proximal_mu: Weight of FedProx's proximal term.
        memory: What the client's defenses remember; None before its first round.
        coins: Coins of its canaries; None before they are tossed.
        with_truth: Whether the ground truth is asked for.
    """

    site: Site
    operator: Operator
    sent: dict[str, Tensor]
    round: int
    proximal_mu: float = 0.0
    memory: dict[str, Tensor] | None = None
    coins: Tensor | None = None
    with_truth: bool = False

    @property
    def client(self) -> str:
        """The client's number."""
        return self.operator.client

    @property
    def stream(self) -> tuple[object, ...]:
        """The names of its training's randomness."""
        return "train", self.client, self.round


@dataclass(frozen=True, kw_only=True)
class Response:
    """What comes of a task.

    Attributes:
        upload: The defended state or gradient, buffers included.
        num_examples: What the upload weighs in the mean.
        memory: What the defenses remember now; empty if they remember nothing.
        coins: Coins of its canaries; None if it carries none.
        truth: Labels and rows used, and coins; empty unless it was asked for.
        fidelity: How far the upload is from the undefended one, by metric; stands with the truth.
    """

    upload: Params
    num_examples: int
    memory: dict[str, Tensor] = field(default_factory=dict)
    coins: Tensor | None = None
    truth: Mapping[str, Tensor] = field(default_factory=dict)
    fidelity: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """A client's examples, its canary records after them.

    Attributes:
        dataset: The run's.
        rows: Rows of the training set that are the client's.
        canaries: Inputs and labels of its canary records.
        batches: How a defense, or records that are absent, change the batches.
    """

    dataset: Dataset
    rows: Tensor
    canaries: tuple[Tensor, Tensor] | None
    batches: Batches | None

    @property
    def count(self) -> int:
        """How many there are."""
        return self.rows.shape[0] + (self.canaries[1].shape[0] if self.canaries else 0)

    @cached_property
    def labels(self) -> Tensor:
        """What the loss takes of each: its label, or its targets."""
        labels = self.dataset.y[self.rows]
        return torch.cat([labels, self.canaries[1]]) if self.canaries else labels

    @cached_property
    def inputs(self) -> Tensor:
        """Each as the model takes it."""
        inputs = self.dataset.inputs[self.rows]
        return torch.cat([inputs, self.canaries[0]]) if self.canaries else inputs


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A task that was accepted, before its training.

    Attributes:
        local: How the client trains.
        relation: What it carries in an audited run.
        coins: Those of its canaries.
        memory: What its defenses remember, this round counted.
    """

    task: Task
    local: LocalTraining
    relation: Relation | None
    coins: Tensor
    examples: Examples
    memory: dict[str, Tensor]

    def steps(self) -> list[Tensor]:
        """Return the positions of each step's examples, where no defense has a say in them."""
        task = self.task
        order = generator(task.site.config.seed, *task.stream)
        return shuffled(len(self.examples.rows), self.local, order)
