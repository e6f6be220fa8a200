"""What DP-SGD guarantees after a number of rounds: its μ and its ε.

In: the noise, how batches are drawn, and how many rounds a client took part in. Out: μ and ε.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from defenses.promise import gaussian_epsilon
from fedsim.core.types import LocalTraining

if TYPE_CHECKING:  # slow to import
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

COARSE = 16.0  # grid of a whole curve, whose δ are large, in units of that for one small δ

Sampling = Literal["poisson", "shuffle"]


@dataclass(frozen=True)
class Sampled:
    """Steps of a Poisson-subsampled Gaussian mechanism: more is known of them than one (ε, δ).

    Attributes:
        noise: Noise multiplier; > 0.
        rate: Chance of each example to be in a batch; below 1.
        steps: Batches.
        replaced: One example is replaced by another, not added or removed.
    """

    noise: float
    rate: float
    steps: int
    replaced: bool

    def epsilon(self, delta: float) -> float:
        """Return ε at δ."""
        return subsampled_epsilon(self.noise, self.rate, self.steps, delta, replaced=self.replaced)

    def deltas(self, epsilons: Sequence[float]) -> NDArray[np.float64]:
        """Return δ at many ε ≥ 0: the whole trade-off curve, by an upper bound."""
        loss = _step_loss(self.noise, self.rate, replaced=self.replaced, coarse=COARSE)
        return np.asarray(loss.self_compose(self.steps).get_delta_for_epsilon(list(epsilons)))


@dataclass(frozen=True)
class Accounting:
    """The privacy accounting of clipped gradient sums with Gaussian noise.

    Attributes:
        noise: Noise multiplier: the noise's standard deviation in clips; ≥ 0.
        delta: δ at which ε is stated.
        sampling: How batches are drawn.
        apart: How many clips apart the sums of two neighbours are: 1 where one has an example
            more, 2 where an example is replaced.
    """

    noise: float
    delta: float
    sampling: Sampling
    apart: float = 1.0

    def mu(self, local: LocalTraining, num_examples: int, rounds: int) -> float | None:
        """Return μ of Gaussian differential privacy; None where sampling amplifies it."""
        steps = local.epochs * rounds  # nothing is gained by a sampling that is not done
        if self.sampling == "poisson":
            if local.batch_size < num_examples:
                return None
            steps = num_steps(num_examples, local) * rounds
        return self.apart * steps**0.5 / self.noise

    def sampled(self, local: LocalTraining, num_examples: int, rounds: int) -> Sampled | None:
        """Return the steps, where sampling amplifies their privacy; None elsewhere."""
        if self.noise == 0 or self.mu(local, num_examples, rounds) is not None:
            return None
        steps = num_steps(num_examples, local) * rounds
        return Sampled(self.noise, local.batch_size / num_examples, steps, self.apart > 1)

    def epsilon(self, local: LocalTraining, num_examples: int, rounds: int) -> float:
        """Return ε at `delta`."""
        if self.noise == 0:
            return math.inf if rounds else 0.0
        if (sampled := self.sampled(local, num_examples, rounds)) is not None:
            return sampled.epsilon(self.delta)
        return gaussian_epsilon(self.mu(local, num_examples, rounds) or 0.0, self.delta)


def num_steps(num_examples: int, local: LocalTraining) -> int:
    """Return how many batches a round has."""
    if local.upload == "gradient":
        return 1
    return local.epochs * -(-num_examples // local.batch_size)


@lru_cache(maxsize=4096)
def subsampled_epsilon(
    noise: float, rate: float, steps: int, delta: float, *, replaced: bool = False
) -> float:
    """Return ε at δ of `steps` Poisson-subsampled Gaussian mechanisms, adding or removing one.

    An upper bound, by composing the distribution of the privacy loss of one step (Koskela, Jälkö,
    Honkela, "Computing Tight Differential Privacy Guarantees Using FFT", AISTATS 2020; rounded up
    as in Doroshenko et al., "Connect the Dots", PETS 2022). Where everything is sampled it is the
    exact one of the Gaussian mechanism, which also bounds noise too small to promise anything.

    Args:
        noise: Noise multiplier; > 0.
        rate: Chance of each example to be in a batch.
        steps: Batches.
        delta: δ.
        replaced: One example is replaced by another instead, twice as far away.
    """
    if rate == 1 or noise < 0.01:
        return gaussian_epsilon((2 if replaced else 1) * steps**0.5 / noise, delta)
    loss = _step_loss(noise, rate, replaced=replaced)
    return float(loss.self_compose(steps).get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def _step_loss(
    noise: float, rate: float, *, replaced: bool, coarse: float = 1.0
) -> "PrivacyLossDistribution":
    """Return the privacy loss distribution of one step, of one example more or replaced.

    `coarse` is how many times wider than usual its grid is.
    """
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
    from dp_accounting.privacy_accountant import NeighboringRelation

    # Losses spread as 1/σ²: a grid that grows with them takes no longer for little noise.
    grid = coarse * max(5e-4 / noise**2, 2e-5)
    relation = "REPLACE_ONE" if replaced else "ADD_OR_REMOVE_ONE"
    return from_gaussian_mechanism(
        noise,
        sampling_prob=rate,
        value_discretization_interval=grid,
        neighboring_relation=NeighboringRelation[relation],
    )
