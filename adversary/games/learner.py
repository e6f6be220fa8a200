"""What a client makes of its records: gradients or trained weights, then its defense."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor, nn

from adversary.games.evidence import Evidence, Records
from adversary.games.game import Draws
from adversary.games.gradients import RECORDS, Reading, batch_gradients, entries_at_once
from adversary.games.summary import Beside, Summary
from adversary.members.candidates import trained_names
from adversary.projection import Reduce
from adversary.rehearsal import defended, rehearse_each
from adversary.workspace import working_copy
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Params, Update

LARGE = 20_000  # parameters above which gradients are projected
CELLS = 8_192  # about, of a projection


@dataclass(frozen=True, eq=False)
class Learner:
    """A client's learning algorithm, and the projection through which uploads are looked at.

    Attributes:
        auxiliary: The architecture and the defense.
        local: The protocol.
    """

    auxiliary: Auxiliary
    local: LocalTraining

    @property
    def model(self) -> nn.Module:
        """The architecture."""
        return self.auxiliary.model

    @cached_property
    def names(self) -> list[str]:
        """The trained parameters."""
        return trained_names(self.auxiliary)

    @cached_property
    def working_copy(self) -> nn.Module:
        """A copy of the model, which rehearsals train."""
        return working_copy(self.auxiliary)

    @cached_property
    def reduce(self) -> Reduce | None:
        """Bounds the memory of a large model's gradients."""
        sizes = [self.model.get_parameter(name).numel() for name in self.names]
        return Reduce(sizes, CELLS, generator(0, "reduce")) if sum(sizes) > LARGE else None

    @cached_property
    def _beside(self) -> Beside:
        """Puts beside an upload what can be read off it."""
        shapes = {name: self.model.get_parameter(name).shape for name in self.names}
        classes = self.auxiliary.num_classes
        return Beside(self.reduce, Summary(shapes, classes, CELLS, generator(0, "summary")))

    def uploads(
        self, state: Params, inputs: Tensor, labels: Tensor, *, coins: str, defense: bool
    ) -> Tensor:
        """Return each batch's upload, flat and pointing uphill as a gradient does, (n, features).

        Args:
            state: The weights sent.
            inputs: Shape (n, batch, *shape).
            labels: Shape (n, batch).
            coins: Names the randomness of training and of the defense.
            defense: Whether it is applied.
        """
        return self._rows(state, inputs, labels, self.reduce, coins=coins, defense=defense)

    def _rows(
        self,
        state: Params,
        inputs: Tensor,
        labels: Tensor,
        reading: Reading | None,
        *,
        coins: str,
        defense: bool,
    ) -> Tensor:
        applied = self.auxiliary.defense if defense else None
        plain = self.local.upload == "gradient" and (applied is None or applied.gradient is None)
        if plain and applied is None:
            return self._plain(state, inputs, labels, reading)
        like, given = (
            Observation(state, Update(1, "client", {}, None), self.local),
            (inputs, labels),
        )
        observations = (
            self.gradients(like, *given)
            if plain
            else self._trained(like, *given, coins=coins, hooked=applied is not None)
        )
        if applied is not None:
            observations = self._defended(observations, coins)
        return self.read((o.update.delta for o in observations), reading)

    def _defended(self, observations: Iterable[Observation], coins: str) -> Iterator[Observation]:
        for place, observation in enumerate(observations):
            yield defended(observation, self.auxiliary, generator(0, "defense", coins, place))

    def read(self, deltas: Iterable[Params], reading: Reading | None) -> Tensor:
        """Return flat uploads, or what is read off them, some at a time."""
        size = sum(self.model.get_parameter(name).numel() for name in self.names)
        flats, rows = map(self._whole, deltas), []
        while some := list(islice(flats, max(1, entries_at_once() // size))):
            rows.append(torch.stack(some) if reading is None else reading(torch.stack(some)))
        return torch.cat(rows)

    def gradients(self, like: Observation, inputs: Tensor, labels: Tensor) -> Iterator[Observation]:
        """Yield the undefended gradient of every batch, as an observation like `like`."""
        parameters = [self.model.get_parameter(name) for name in self.names]
        sizes = [value.numel() for value in parameters]
        together = max(1, entries_at_once() // sum(sizes))
        for x, y in zip(inputs.split(together), labels.split(together), strict=True):
            for flat in batch_gradients(
                self.model, like.sent, x, y, smoothing=self.local.label_smoothing
            ):
                parts = zip(self.names, flat.split(sizes), parameters, strict=True)
                delta = {name: part.view_as(value) for name, part, value in parts}
                yield replace(like, update=Update(1, "client", delta, y.shape[1]))

    def _trained(
        self, like: Observation, inputs: Tensor, labels: Tensor, *, coins: str, hooked: bool
    ) -> Iterator[Observation]:
        defense = self.auxiliary.defense if hooked else None
        streams = (generator(0, "local", coins, place) for place in range(len(labels)))
        clients = zip(inputs, labels, streams, strict=True)
        return rehearse_each(like, self.auxiliary, self.working_copy, clients, defense=defense)

    def weight(self, batch: int) -> float:
        """Return how often an upload of so many records holds one record's gradient."""
        if self.local.upload == "gradient":
            return 1 / batch
        return self.local.epochs / min(batch, self.local.batch_size)

    def flat(self, delta: Params) -> Tensor:
        """Return one upload, flat and pointing uphill, (features,).

        Uploaded weights are divided by the learning rate: the sum of their steps' gradients.
        """
        return self.read([delta], self.reduce)[0]

    def _whole(self, delta: Params) -> Tensor:
        flat = torch.cat([delta[name].flatten() for name in self.names])
        return flat if self.local.upload == "gradient" else -flat / self.local.lr

    def question(self, delta: Params, batch: int) -> Evidence:
        """Return what the adversary has of one upload, with no record in question.

        Args:
            delta: The upload.
            batch: How many records it assumes a batch to have.
        """
        rows = self.read([delta], self._beside)
        return self._beside.evidence(rows, batch, self.weight(batch))

    def hypotheses(self, state: Params, records: Records) -> Tensor:
        """Return gradients of the records in question, (n, values, labels, features).

        Args:
            state: The weights sent.
            records: With each value of the secret, and the labels that they may have.
        """
        return self._plain(state, *records.alone(), self.reduce).view(*records.shape, -1)

    def mean_gradient(self, state: Params, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean gradient of the records of some batches, (size,), without any defense."""
        some, theirs = inputs.flatten(0, 1)[:RECORDS], labels.flatten(0, 1)[:RECORDS]
        return self._plain(state, some[None], theirs[None], None)[0]

    def _plain(
        self, state: Params, inputs: Tensor, labels: Tensor, reading: Reading | None
    ) -> Tensor:
        """Return the gradient of each batch without any defense, flat."""
        return batch_gradients(
            self.model,
            state,
            inputs,
            labels,
            smoothing=self.local.label_smoothing,
            reduce=reading,
        )

    def _target_labels(self, draws: Draws, *, knows_label: bool) -> Tensor:
        """Return the labels that the record in question may have, (n, labels)."""
        assert draws.target_labels is not None
        if knows_label:
            return draws.target_labels[:, None]
        return torch.arange(self.auxiliary.num_classes).expand(len(draws.secrets), -1)

    def evidence(
        self,
        state: Params,
        draws: Draws,
        *,
        coins: str,
        defense: bool,
        knows_label: bool,
        knows_others: bool,
        assumed_batch: int,
        assumed_state: Params | None = None,
    ) -> Evidence:
        """Return what the adversary has of each trial.

        Args:
            state: The weights sent.
            draws: What clients train on.
            coins: Names the randomness of training and of the defense.
            defense: Whether it is applied.
            knows_label: Whether the adversary knows the label of the record in question.
            knows_others: Whether it knows all other records of the batch.
            assumed_batch: How many records it assumes a batch to have.
            assumed_state: Which weights it assumes to be sent; None if it knows them.
        """
        assumed_state = state if assumed_state is None else assumed_state
        inputs = draws.inputs.unflatten(1, (draws.clients, -1)).flatten(0, 1)
        labels = draws.labels.unflatten(1, (draws.clients, -1)).flatten(0, 1)
        if draws.targets is None and draws.clients == 1:
            rows = self._rows(state, inputs, labels, self._beside, coins=coins, defense=defense)
            return self._beside.evidence(rows, assumed_batch, self.weight(assumed_batch))
        uploads = self.uploads(state, inputs, labels, coins=coins, defense=defense)
        if draws.clients > 1:
            uploads = uploads.view(len(draws.secrets), draws.clients, -1)
        others = hypotheses = records = beside = None
        if knows_others and labels.shape[1] > 1:
            beside = (inputs[:, 1:], labels[:, 1:]) if draws.clients == 1 else None
            others = self._plain(assumed_state, inputs[:, 1:], labels[:, 1:], self.reduce)
            others = others.view_as(uploads)
        if draws.targets is not None:
            possible = self._target_labels(draws, knows_label=knows_label)
            records = Records(draws.targets, possible, beside)
            hypotheses = self.hypotheses(assumed_state, records)
        weight = self.weight(assumed_batch)
        return Evidence(uploads, assumed_batch, weight, hypotheses, others, records)
