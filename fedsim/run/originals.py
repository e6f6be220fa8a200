"""The examples a client used, and what reconstructions and texts are graded with."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Generator, Tensor

from adversary.grading.reconstructions import blank, bounds
from adversary.grading.texts import words
from fedsim.config import Grading
from fedsim.core.errors import BadRecording
from fedsim.core.ground_truth import Lineup, Records, Texts, Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.data import Federated

CELLS = 4_000_000  # of the table of distances between guesses and the pool


@dataclass(frozen=True, eq=False)
class Originals:
    """The training set that clients' examples are of.

    Attributes:
        federated: The training set, and which of its rows are auxiliary.
        seed: The run's.
        grading: How answers are compared with the examples.
    """

    federated: Federated
    seed: int
    grading: Grading

    def of(
        self, truth: Truth | None, *, round_: int, client: str, memory: Memory | None = None
    ) -> Truth | None:
        """Return a client's truth with its distinct examples, and others to tell them from.

        None where its rows are not known: another app's client may keep its labels only.

        Args:
            truth: With the rows of the training set that it used.
            round_: The round and the client: others are drawn for each.
            client: See `round_`.
            memory: Of the round, for what grading computes once.

        Raises:
            BadRecording: A row is none of the training set.
        """
        if truth is None or not len(truth.indices):
            return None
        examples, used = self.federated.dataset.inputs, self._used(truth)
        picture, low, high = self._scale
        lineup = Lineup(
            examples=examples,
            others=self._others(used, generator(self.seed, "lineup", round_, client)),
            blank=picture,
            low=low,
            high=high,
            records=self._records,
            lpips=self.grading.lpips,
            memory=Memory() if memory is None else memory,
        )
        return replace(truth, inputs=examples[used], lineup=lineup)

    def texts_of(self, truth: Truth | None) -> Truth | None:
        """Return a client's truth with its distinct texts; None where its rows are not known.

        Args:
            truth: With the rows of the training set that it used.

        Raises:
            BadRecording: A row is none of the training set.
        """
        dataset = self.federated.dataset
        if truth is None or not len(truth.indices) or dataset.vocabulary is None:
            return None
        ids = dataset.inputs[self._used(truth)].unique(dim=0)
        return replace(truth, texts=Texts(ids, dataset.vocabulary, *self._public))

    def _used(self, truth: Truth) -> Tensor:
        """Return the distinct rows that a client used.

        Raises:
            BadRecording: One is none of the training set.
        """
        count, used = len(self.federated.dataset.inputs), truth.indices.unique()
        first, last = int(used[0]), int(used[-1])
        if first < 0 or last >= count:
            raise BadRecording(f"truth: must name rows below {count}, got {first} to {last}")
        return used

    @cached_property
    def _public(self) -> tuple[frozenset[int], frozenset[str]]:
        """The tokens and the words that auxiliary texts hold."""
        vocabulary = self.federated.dataset.vocabulary
        assert vocabulary is not None
        rows = self.federated.dataset.inputs[self.federated.auxiliary]
        common = (words(vocabulary.text(row)) for row in rows.tolist())
        return frozenset(rows.unique().tolist()), frozenset().union(*common)

    def _others(self, used: Tensor, stream: Generator) -> Tensor:
        """Draw rows that a client did not use, as many for each of its examples, if there are."""
        unused = torch.ones(len(self.federated.dataset.inputs), dtype=torch.bool)
        unused[used] = False
        rows, others = unused.nonzero().flatten(), self.grading.candidates - 1
        count = min(others * len(used), max(others, CELLS // len(used) - len(used)))
        order = torch.randperm(len(rows), generator=stream)
        return rows[order[:count]].sort().values

    @cached_property
    def _records(self) -> Records | None:
        """What records are compared by; None where the data set declares no columns."""
        schema, held_out = self.federated.dataset.schema, self.federated.auxiliary
        if schema is None:
            return None
        return Records(schema, schema.tolerances(self.federated.dataset.inputs), held_out)

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor, Tensor]:
        """The blank picture, and the smallest and largest value of each input."""
        examples, held_out = self.federated.dataset.inputs, self.federated.auxiliary
        auxiliary = examples[held_out] if len(held_out) else None
        return blank(auxiliary, tuple(examples.shape[1:])), *bounds(examples)
