"""Audits of the last model alone: what a client or an outsider sees, the rounds before it hidden.

Source: T. Cebere, A. Bellet, N. Papernot, "Tighter privacy auditing of DP-SGD in the hidden state
threat model", ICLR 2025 (a gradient that is crafted beforehand, in every step); T. Steinke et al.,
"The last iterate advantage", ICLR 2025 (what a linear loss gives away of its last iterate);
S. Yoon, W. Jeung, A. No, "Adversarial sample-based approach for tighter privacy auditing in final
model-only scenarios", 2024 (the canary's loss under the last model, as a score).

A run begins at the weights of the first round. After every round the model moves by the whole of
the client's upload; the next round trains from there. The last model is a function of all uploads,
so that the claim for all rounds is about it, too, and no test of it shows more than one of them.

*Differs from the papers*: one client, whose upload no other client's dilutes, as an adversary that
knows the others' would see it. Of a chosen gradient (`stand_in`) the sequence is one direction,
which is the strongest where the noise of all rounds is equal. Records are crafted at the first
round's weights, and not for their loss under the last model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.train import load
from defenses import Defense
from fedsim.audit.batches import Neighbours, trained_of
from fedsim.audit.draws import mean_of_draws
from fedsim.audit.mechanism import Mechanism, State
from fedsim.audit.user_code import flattened
from fedsim.core.sgd import example_losses
from fedsim.core.types import Params


@dataclass(frozen=True, eq=False)
class LastModel:
    """A mechanism of which only the model after the last round is seen.

    Attributes:
        mechanism: The client.
    """

    mechanism: Mechanism

    @property
    def quiet(self) -> Defense | None:
        """The mechanism's."""
        return self.mechanism.quiet

    @property
    def noised(self) -> Defense | None:
        """The mechanism's."""
        return self.mechanism.noised

    def uploads(
        self, neighbours: Neighbours, having: int, count: int, *names: object
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield how far independent runs have moved the model, shape (runs, d), at place 0.

        Args:
            neighbours: The data sets, and the weights of the first round.
            having: Which of them: 1 with the canary.
            count: How many runs.
            *names: Of the randomness; other names, other coins.
        """
        made, batches = self.mechanism, neighbours.batches[having]
        if neighbours.constant and made.at_once(neighbours, batches):
            start = _trained(neighbours, neighbours.states[0])
            weights = start
            for place, block in made.uploads(neighbours, having, count, *names):
                weights = self._stepped(weights if place else start, block)
                if place == len(batches) - 1:
                    yield 0, weights - start
            return
        for run in range(count):
            yield 0, self._moved(made, neighbours, having, *names, run)[None]

    def expected(self, neighbours: Neighbours, having: int) -> list[Tensor]:
        """Return how far the model is moved without noise, as `Mechanism.expected`."""
        return self._expected(self.quiet, neighbours, having)

    def before_noise(self, neighbours: Neighbours, having: int) -> list[Tensor]:
        """Return how far what noise is added to moves the model."""
        return self._expected(self.noised, neighbours, having)

    def _expected(
        self, defense: Defense | None, neighbours: Neighbours, having: int
    ) -> list[Tensor]:
        quiet = self.mechanism.without_noise(defense, neighbours)
        return mean_of_draws(lambda draw: [self._moved(quiet, neighbours, having, "quiet", draw)])

    def _moved(
        self, made: Mechanism, neighbours: Neighbours, having: int, *names: object
    ) -> Tensor:
        """Return how far one run moves the model, flat."""
        model, state = neighbours.model, State()
        start = _trained(neighbours, neighbours.states[0])
        weights = start
        for place, batch in enumerate(neighbours.batches[having]):
            sent = _state(neighbours, weights)
            upload, state = made.once(model, sent, batch, state, (*names, place))
            weights = self._stepped(weights, upload)
        return weights - start

    def _stepped(self, weights: Tensor, upload: Tensor) -> Tensor:
        """Return the weights after the server's step: FedSGD's, or FedAvg's with one client."""
        if self.mechanism.local.upload == "gradient":
            return weights - self.mechanism.local.lr * upload
        return weights + upload


def canary_loss(neighbours: Neighbours) -> Callable[[Tensor], Tensor]:
    """Return the score of a last model that sees no weights: the loss of the canary.

    Of a canary in the place of another record it is the difference of both.

    Returns:
        How far runs have moved the model, shape (n, d) → loss of each run, shape (n).
    """
    model, start = neighbours.model, _trained(neighbours, neighbours.states[0])
    absent, present = (batches[0] for batches in neighbours.batches)
    inputs = torch.stack([present.inputs[0], absent.inputs[0]])
    labels = torch.stack([present.labels[0], absent.labels[0]])
    same = torch.equal(inputs[0], inputs[1]) and torch.equal(labels[0], labels[1])

    @torch.no_grad()
    def losses(moved: Tensor) -> Tensor:
        values = []
        for row in moved:
            load(model, _state(neighbours, start + row))
            model.eval()
            each = example_losses(model(inputs), labels)
            values.append(each[0] if same else each[0] - each[1])
        return torch.stack(values).double()

    return losses


def _trained(neighbours: Neighbours, state: Params) -> Tensor:
    """Return the trained weights of a state, flat."""
    return flattened({name: state[name] for name in trained_of(neighbours.model)})


def _state(neighbours: Neighbours, weights: Tensor) -> Params:
    """Return the first round's state with other trained weights."""
    first, trained = neighbours.states[0], trained_of(neighbours.model)
    parts = weights.split([value.numel() for value in trained.values()])
    moved = {n: part.view(first[n].shape) for n, part in zip(trained, parts, strict=True)}
    return {**first, **moved}
