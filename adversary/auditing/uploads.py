"""Scores of canaries in recorded uploads: how much each looks as if its coin were heads.

No coin is looked at here, nor any other truth: the auditor knows the canaries, the defenses with
their options, and what was uploaded.

An update canary is scored by the inner product of the upload with what the defenses make of it
without their noise, the best there is against isotropic Gaussian noise. Of record canaries, which
share batches and a model, the posterior means of all coins together are taken, as if gradients
were those at the weights sent and everything else were Gaussian noise: what is wrong with that
costs power, never validity.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from defenses.chain import chain
from defenses.defense import Defense
from fedsim.core.examples import example_gradients, flat_rows
from fedsim.core.params import norm
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, Observation, Params


@dataclass(frozen=True)
class ClientScores:
    """How one client's uploads lie along its update canary.

    Attributes:
        scores: Of every upload, in units of the canary: 1 or −1 without noise, by the coin.
        cosine: Of the sum of all uploads with the canary, each turned as the canary was.
        dimension: Of that sum.
    """

    scores: NDArray[np.float64]
    cosine: float
    dimension: int


def template(links: Sequence[Defense], canary: Params, seed: int) -> dict[str, Tensor]:
    """Return what defenses without their noise leave of a canary: heads less tails, halved."""
    quiet = chain(*(link for link in links if not link.noise))
    state = quiet.init(canary)
    ends = [
        quiet.apply({n: sign * v for n, v in canary.items()}, state, generator(seed, "template"))[0]
        for sign in (1, -1)
    ]
    return {name: (ends[0][name] - ends[1][name]) / 2 for name in canary}


class UpdateScores:
    """How one client's uploads lie along its update canary, round by round.

    Args:
        expected: What `template` returned.
        turn: Which way round the canary was taken in a round, 1 or −1.
    """

    def __init__(self, expected: Params, turn: Callable[[int], int]) -> None:
        self.expected, self.turn = expected, turn
        self.about, self.length = _flat(expected, expected), float(norm(expected))
        self.total, self.scores = torch.zeros_like(self.about), list[float]()

    def add(self, observation: Observation) -> None:
        """Take one more upload into account."""
        update = observation.update
        flat = self.turn(update.round) * _flat(update.delta, self.expected)
        self.scores.append(float(flat @ self.about) / self.length**2)
        self.total += flat

    def result(self) -> ClientScores:
        """Return a score per upload, and how their sum lies."""
        size = float(self.total.norm()) or 1.0
        dimension = int(torch.count_nonzero(self.total))
        cosine = float(self.total @ self.about) / (self.length * size)
        return ClientScores(np.array(self.scores), cosine, max(1, dimension))

    @property
    def nbytes(self) -> int:
        """What is held in memory."""
        return 3 * self.total.nbytes


class RecordScores:
    """How likely one client's record canaries are in its data, round by round.

    Args:
        model: The architecture; its weights are overwritten.
        inputs: Of the canaries.
        labels: Of the canaries.
        clip: Largest norm of one example's gradient in training.
        num_examples: Of the client, its canaries included.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Float[Tensor, "m *shape"],
        labels: Tensor,
        clip: float,
        num_examples: int,
    ) -> None:
        self.model, self.inputs, self.labels, self.clip = model, inputs, labels, clip
        self.num_examples = num_examples
        self.precision = torch.zeros(len(labels), len(labels), dtype=torch.float64)
        self.pull = torch.zeros(len(labels), dtype=torch.float64)

    def add(self, observation: Observation) -> None:
        """Take one more upload into account."""
        model, local = self.model, observation.local
        with torch.no_grad():
            for name, value in model.state_dict().items():
                value.copy_(observation.sent[name])
        trained = {n: value for n, value in model.named_parameters() if value.requires_grad}
        gradients = example_gradients(
            model, trained, self.inputs, self.labels, label_smoothing=local.label_smoothing
        )
        g = torch.cat([flat_rows(gradients[name]) for name in trained], dim=1).double()
        g = g * (self.clip / g.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
        scale, uphill = _uses(local, self.num_examples)
        up = uphill * _flat(observation.update.delta, trained)
        variance = float(up.square().mean()) or 1.0  # mostly noise, where there is any to speak of
        gram = scale**2 * (g @ g.T) / variance
        self.precision += gram
        self.pull += scale * (g @ up) / variance - gram.sum(dim=1) / 2

    def result(self) -> NDArray[np.float64]:
        """Return every coin's posterior mean less a half; its prior variance is a quarter."""
        prior = 4 * torch.eye(len(self.pull), dtype=torch.float64)
        return torch.linalg.solve(self.precision + prior, self.pull).numpy()

    @property
    def nbytes(self) -> int:
        """What is held in memory."""
        return self.precision.nbytes + self.pull.nbytes + self.inputs.nbytes


def _uses(local: LocalTraining, num_examples: int) -> tuple[float, int]:
    """Return how much of its gradient an example moves an upload on average, and which way."""
    if local.upload == "gradient":
        return 1 / num_examples, 1
    steps = local.epochs * -(-num_examples // local.batch_size)
    rate = min(1.0, local.batch_size / num_examples)
    return local.lr * steps * rate / local.batch_size, -1


def _flat(update: Params, like: Params) -> Tensor:
    return torch.cat([update[name].double().flatten() for name in like])
