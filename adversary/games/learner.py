"""What a client makes of its records: gradients or trained weights, then its defense."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from adversary.games.evidence import Evidence
from adversary.games.gradients import PARAMETERS, Reduce, batch_gradients
from adversary.games.samplers import Trials
from adversary.members.candidates import trained_names
from adversary.rehearsal import defended, rehearse_with
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
    def reduce(self) -> Reduce | None:
        """Bounds the memory of a large model's gradients."""
        sizes = [self.model.get_parameter(name).numel() for name in self.names]
        return Reduce(sizes, CELLS, generator(0, "reduce")) if sum(sizes) > LARGE else None

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
        known = self.auxiliary.defense if defense else None
        plain = self.local.upload == "gradient" and (known is None or known.gradient is None)
        if plain and known is None:
            return batch_gradients(
                self.model, state, inputs, labels,
                smoothing=self.local.label_smoothing, reduce=self.reduce,
            )  # fmt: skip
        rows, like = [], Observation(state, Update(1, "client", {}, None), self.local)
        seen = self._gradients(like, inputs, labels) if plain else self._trained(
            like, inputs, labels, coins=coins, hooked=known is not None
        )  # fmt: skip
        for place, one in enumerate(seen):
            stream = generator(0, "defense", coins, place)
            made = one if known is None else defended(one, self.auxiliary, stream)
            rows.append(self.flat(made.update.delta))
        return torch.stack(rows)

    def _gradients(
        self, like: Observation, inputs: Tensor, labels: Tensor
    ) -> Iterator[Observation]:
        parameters = [self.model.get_parameter(name) for name in self.names]
        sizes = [value.numel() for value in parameters]
        together = max(1, PARAMETERS // sum(sizes))
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
        known = replace(self.auxiliary, input_shape=tuple(inputs.shape[2:]))
        for place, (x, y) in enumerate(zip(inputs, labels, strict=True)):
            stream = generator(0, "local", coins, place)
            yield rehearse_with(like, known, x, y, stream, hooked=hooked)

    def weight(self, batch: int) -> float:
        """Return how often an upload of so many records holds one record's gradient."""
        if self.local.upload == "gradient":
            return 1 / batch
        return self.local.epochs / min(batch, self.local.batch_size)

    def flat(self, delta: Params) -> Tensor:
        """Return one upload, flat and pointing uphill, (features,).

        Uploaded weights are divided by the learning rate: the sum of their steps' gradients.
        """
        flat = torch.cat([delta[name].flatten() for name in self.names])
        flat = flat if self.local.upload == "gradient" else -flat / self.local.lr
        return flat if self.reduce is None else self.reduce(flat[None])[0]

    def hypotheses(self, state: Params, trials: Trials, *, label_known: bool) -> Tensor | None:
        """Return the gradient of the record in question, (n, values, labels, features)."""
        if trials.targets is None or trials.asked is None:
            return None
        count, values = trials.targets.shape[:2]
        classes = self.auxiliary.num_classes
        labels = trials.asked[:, None] if label_known else torch.arange(classes).expand(count, -1)
        inputs = trials.targets[:, :, None].expand(
            -1, -1, labels.shape[1], *[-1] * (trials.targets.ndim - 2)
        )
        each = labels[:, None].expand(-1, values, -1)
        found = batch_gradients(
            self.model, state, inputs.flatten(0, 2)[:, None], each.flatten()[:, None],
            smoothing=self.local.label_smoothing, reduce=self.reduce,
        )  # fmt: skip
        return found.view(count, values, labels.shape[1], -1)

    def evidence(
        self,
        state: Params,
        trials: Trials,
        *,
        coins: str,
        defense: bool,
        label_known: bool,
        others_known: bool,
        told_batch: int,
        told_state: Params | None = None,
    ) -> Evidence:
        """Return what the adversary has of each trial.

        Args:
            state: The weights sent.
            trials: What clients train on.
            coins: Names the randomness of training and of the defense.
            defense: Whether it is applied.
            label_known: Whether the adversary knows the label of the record in question.
            others_known: Whether it knows all other records of the batch.
            told_batch: How many records it takes a batch to have.
            told_state: What it takes the weights sent to be; None where it knows them.
        """
        told_state = state if told_state is None else told_state
        count = len(trials.secrets)
        inputs = trials.inputs.unflatten(1, (trials.clients, -1)).flatten(0, 1)
        labels = trials.labels.unflatten(1, (trials.clients, -1)).flatten(0, 1)
        uploads = self.uploads(state, inputs, labels, coins=coins, defense=defense)
        if trials.clients > 1:
            uploads = uploads.view(count, trials.clients, -1)
        others = None
        if others_known and labels.shape[1] > 1:
            others = batch_gradients(
                self.model, told_state, inputs[:, 1:], labels[:, 1:],
                smoothing=self.local.label_smoothing, reduce=self.reduce,
            ).view_as(uploads)  # fmt: skip
        told = self.hypotheses(told_state, trials, label_known=label_known)
        return Evidence(uploads, told_batch, self.weight(told_batch), told, others)
