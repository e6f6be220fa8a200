"""DP-SGD: every example's influence on training is bounded and blurred."""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from defenses.defense import Defense, State, no_state
from defenses.examples import check_apart, example_gradients
from defenses.promise import Promise, Relation, gaussian_epsilon
from fedsim.core.catalog import Entry
from fedsim.core.types import LocalTraining, Params
from fedsim.models import remembering_layer

if TYPE_CHECKING:  # slow to import
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

Sampling = Literal["poisson", "shuffle"]

ROUNDS = "rounds"  # in the state: how many rounds the client has taken part in


def dp_sgd(
    *,
    clip: float = 1.0,
    noise: float = 1.0,
    delta: float = 1e-5,
    max_epsilon: float | None = None,
    sampling: Sampling = "poisson",
    microbatch: int = 64,
) -> Defense:
    """Clip each example's gradient, add Gaussian noise to their sum, and divide by the batch size.

    Source: Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang, "Deep Learning with
    Differential Privacy", CCS 2016, algorithm 1. With `poisson`, each step's batch holds every
    example by itself with probability B/n, and ε is that of the Poisson-subsampled Gaussian
    mechanism, by dp-accounting's privacy loss distributions. With `shuffle`, every example is used
    once an epoch, nothing is gained by sampling, and each epoch counts as one Gaussian mechanism in
    which a removed example's gradient is zero. Either way the sum is divided by the batch size B
    that was asked for, never by how many examples came, which would give that number away. ε holds
    for the client's number of examples being public, for what a client itself uploads in all its
    rounds, and for coins that the server cannot draw; a run's seed is no secret from its server.

    Args:
        clip: Largest Euclidean norm of one example's gradient over all parameters; > 0.
        noise: Noise multiplier σ: the sum's noise has standard deviation σ·clip; ≥ 0.
        delta: δ at which ε is stated; in (0, 1), and below 1/n for every client.
        max_epsilon: A client whose next round would exceed it uploads nothing any more.
        sampling: How batches are drawn.
        microbatch: Examples whose gradients are held at the same time.

    Raises:
        ValueError: An option is out of range.
    """
    if not (clip > 0 and math.isfinite(clip)):
        raise ValueError(f"clip: must be finite and > 0, got {clip}")
    if not (noise >= 0 and math.isfinite(noise)):
        raise ValueError(f"noise: must be finite and ≥ 0, got {noise}")
    if not 0 < delta < 1:
        raise ValueError(f"delta: must be above 0 and below 1, got {delta}")
    if max_epsilon is not None and not max_epsilon > 0:
        raise ValueError(f"max_epsilon: must be > 0, got {max_epsilon}")
    if microbatch < 1:
        raise ValueError(f"microbatch: must be at least 1, got {microbatch}")

    def gradient(
        model: nn.Module,
        parameters: Params,
        inputs: Float[Tensor, "batch *shape"],
        labels: Int[Tensor, " batch"],
        local: LocalTraining,
        generator: Generator,
    ) -> Sequence[Tensor]:
        total = clipped_sum(
            model, parameters, inputs, labels,
            clip=clip, label_smoothing=local.label_smoothing, microbatch=microbatch,
        )  # fmt: skip
        return [
            (value + noise * clip * _normal(value, generator)) / local.batch_size
            for value in total.values()
        ]

    def mu_within(
        apart: float, local: LocalTraining, num_examples: int, rounds: int
    ) -> float | None:
        if sampling != "poisson":  # nothing is gained by a sampling that is not done
            return apart * (local.epochs * rounds) ** 0.5 / noise
        if local.batch_size < num_examples:
            return None
        return apart * (num_steps(num_examples, local) * rounds) ** 0.5 / noise

    def epsilon_within(apart: float, local: LocalTraining, num_examples: int, rounds: int) -> float:
        """Return ε where two neighbours' gradients are so many clips apart, of equal rates."""
        if noise == 0:
            return math.inf if rounds else 0.0
        if (mu := mu_within(apart, local, num_examples, rounds)) is not None:
            return gaussian_epsilon(mu, delta)
        steps = num_steps(num_examples, local) * rounds
        rate = local.batch_size / num_examples
        return subsampled_epsilon(noise, rate, steps, delta, replaced=apart > 1)

    def epsilon(local: LocalTraining, num_examples: int, rounds: int) -> float:
        return epsilon_within(1.0, local, num_examples, rounds)

    def spend(state: State, local: LocalTraining, num_examples: int) -> State:
        if max_epsilon is None:
            return state
        rounds = int(state[ROUNDS]) + 1
        after = epsilon(local, num_examples, rounds)
        if after > max_epsilon:
            raise ValueError(
                f"dp-sgd: privacy budget spent: round {rounds} of this client would bring ε to "
                f"{after:.3g}, max_epsilon = {max_epsilon:g}"
            )
        return {ROUNDS: torch.tensor(rounds)}

    def check(model: nn.Module, local: LocalTraining, sizes: Sequence[int]) -> None:
        _check(model, local, sizes, delta)
        if max_epsilon is not None and epsilon(local, min(sizes), 1) > max_epsilon:
            raise ValueError(
                f"dp-sgd.max_epsilon: must allow a round, whose ε is "
                f"{epsilon(local, min(sizes), 1):.3g} for the smallest client, got {max_epsilon:g}"
            )

    sampled = "Poisson-subsampled Gaussian" if sampling == "poisson" else "Gaussian"
    return Defense(
        "dp-sgd",
        init=no_state if max_epsilon is None else lambda _: {ROUNDS: torch.tensor(0)},
        gradient=gradient,
        batches=poisson if sampling == "poisson" else None,
        check=check,
        spend=spend,
        promise=Promise(
            f"hides each example: clip {clip:g}, noise multiplier {noise:g}",
            relation=(
                Relation.ADD_OR_REMOVE_EXAMPLE if sampling == "poisson" else Relation.ZERO_EXAMPLE
            ),
            mechanism=sampled,
            delta=delta,
            epsilon=epsilon if noise > 0 else None,
            mu=partial(mu_within, 1.0) if noise > 0 else None,
            replaced=Promise(
                f"hides which of two each example is: clip {clip:g}, noise multiplier {noise:g}",
                relation=Relation.REPLACE_EXAMPLE,
                mechanism=sampled,
                delta=delta,
                epsilon=partial(epsilon_within, 2.0) if noise > 0 else None,
                mu=partial(mu_within, 2.0) if noise > 0 else None,
            ),
        ),
    )


def clipped_sum(
    model: nn.Module,
    parameters: Params,
    inputs: Float[Tensor, "batch *shape"],
    labels: Int[Tensor, " batch"],
    *,
    clip: float,
    label_smoothing: float = 0.0,
    microbatch: int = 64,
) -> dict[str, Tensor]:
    """Return the sum of the examples' gradients, each scaled down to norm `clip` if it is longer.

    Args:
        model: Runs on one example at a time; must not mix examples.
        parameters: Those to take gradients of.
        inputs: Any number of examples, none included.
        labels: Theirs.
        clip: Over all parameters together.
        label_smoothing: Of the loss.
        microbatch: Examples at the same time.
    """
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for x, y in zip(inputs.split(microbatch), labels.split(microbatch), strict=True):
        if not len(x):  # a batch drawn without any example
            continue
        gradients = example_gradients(model, parameters, x, y, label_smoothing=label_smoothing)
        squares = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients.values()])
        scale = (clip / squares.sum(dim=0).sqrt().clamp(min=1e-12)).clamp(max=1.0)
        for name, g in gradients.items():
            total[name] += torch.tensordot(scale, g, dims=1)
    return total


def num_steps(num_examples: int, local: LocalTraining) -> int:
    """Return how many batches a round has."""
    if local.upload == "gradient":
        return 1
    return local.epochs * -(-num_examples // local.batch_size)


def poisson(count: int, local: LocalTraining, generator: Generator) -> list[Tensor]:
    """Return batches in which every example is by itself with probability B/n; some may be empty.

    There are as many as shuffling would make.
    """
    rate = min(1.0, local.batch_size / count)
    draws = torch.rand(num_steps(count, local), count, generator=generator) < rate
    return [torch.nonzero(row)[:, 0] for row in draws]


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
def _step_loss(noise: float, rate: float, *, replaced: bool) -> "PrivacyLossDistribution":
    """Return the privacy loss distribution of one step, of one example more or replaced."""
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
    from dp_accounting.privacy_accountant import NeighboringRelation

    # Losses spread as 1/σ²: a grid that grows with them takes no longer for little noise.
    grid = max(5e-4 / noise**2, 2e-5)
    relation = "REPLACE_ONE" if replaced else "ADD_OR_REMOVE_ONE"
    return from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=grid,
        neighboring_relation=NeighboringRelation[relation],
    )  # fmt: skip


def _check(model: nn.Module, local: LocalTraining, sizes: Sequence[int], delta: float) -> None:
    smallest, largest = min(sizes), max(sizes)
    check_apart("dp-sgd", model)
    if layer := remembering_layer(model):
        raise ValueError(
            f"dp-sgd: must have a model whose buffers do not follow the data, got {layer}; "
            "set track_running_stats=False"
        )
    if local.batch_size > smallest:
        raise ValueError(
            f"dp-sgd: local.batch_size must be at most the smallest client's {smallest} examples, "
            f"got {local.batch_size}; use a smaller one, or fewer clients"
        )
    if delta >= 1 / largest:
        raise ValueError(
            f"dp-sgd.delta: must be below 1/n = {1 / largest:.3g} for the largest client's n = "
            f"{largest}, got {delta:g}; use {0.1 / largest:.1g}"
        )


def _normal(like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=generator)


DEFENSE = Entry("dp-sgd", dp_sgd, paper="Abadi et al., CCS 2016")
