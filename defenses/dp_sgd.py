"""DP-SGD: every example's influence on training is bounded and blurred."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Int, Num
from torch import Generator, Tensor, nn

from defenses.accounting import Accounting, Sampling, num_steps
from defenses.defense import Defense, State, no_state, spends_nothing
from defenses.promise import Promise, Relation
from fedsim.core.catalog import Entry
from fedsim.core.examples import example_gradients, flat_rows
from fedsim.core.types import LocalTraining, Params

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
    _check_options(clip, noise, delta, max_epsilon, microbatch)
    accounting = Accounting(noise, delta, sampling)
    limited = max_epsilon is not None
    return Defense(
        name="dp-sgd",
        init=_no_rounds if limited else no_state,
        gradient=partial(noised_mean, clip=clip, noise=noise, microbatch=microbatch),
        batches=poisson if sampling == "poisson" else None,
        check=partial(_check, accounting, max_epsilon),
        spend=partial(_spend, accounting, max_epsilon) if limited else spends_nothing,
        apart=True,
        promise=_promise(clip, accounting),
    )


def noised_mean(
    model: nn.Module,
    parameters: Params,
    inputs: Num[Tensor, "batch *shape"],
    labels: Int[Tensor, "batch *target"],
    local: LocalTraining,
    generator: Generator,
    *,
    clip: float,
    noise: float,
    microbatch: int,
) -> Sequence[Tensor]:
    """Return the clipped sum with noise of standard deviation noise·clip, over the batch size."""
    total = clipped_sum(
        model,
        parameters,
        inputs,
        labels,
        clip=clip,
        label_smoothing=local.label_smoothing,
        microbatch=microbatch,
    )
    return [
        (value + noise * clip * _normal(value, generator)) / local.batch_size
        for value in total.values()
    ]


def clipped_sum(
    model: nn.Module,
    parameters: Params,
    inputs: Num[Tensor, "batch *shape"],
    labels: Int[Tensor, "batch *target"],
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
        squares = torch.stack([flat_rows(g).square().sum(dim=1) for g in gradients.values()])
        scale = (clip / squares.sum(dim=0).sqrt().clamp(min=1e-12)).clamp(max=1.0)
        for name, g in gradients.items():
            total[name] += torch.tensordot(scale.to(g.dtype), g, dims=1)
    return total


def poisson(count: int, local: LocalTraining, generator: Generator) -> list[Tensor]:
    """Return batches in which every example is by itself with probability B/n; some may be empty.

    There are as many as shuffling would make.
    """
    rate = min(1.0, local.batch_size / count)
    draws = torch.rand(num_steps(count, local), count, generator=generator) < rate
    return [torch.nonzero(row)[:, 0] for row in draws]


def _check_options(
    clip: float, noise: float, delta: float, max_epsilon: float | None, microbatch: int
) -> None:
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


def _no_rounds(params: Params) -> State:  # noqa: ARG001
    return {ROUNDS: torch.tensor(0)}


def _spend(
    accounting: Accounting,
    max_epsilon: float,
    state: State,
    local: LocalTraining,
    num_examples: int,
) -> State:
    """Count a round, or refuse it where its ε would exceed the budget."""
    rounds = int(state[ROUNDS]) + 1
    after = accounting.epsilon(local, num_examples, rounds)
    if after > max_epsilon:
        raise ValueError(
            f"dp-sgd: privacy budget spent: ε must be at most {max_epsilon:g}, "
            f"got {after:.3g} with round {rounds} of this client"
        )
    return {ROUNDS: torch.tensor(rounds)}


def _check(
    accounting: Accounting,
    max_epsilon: float | None,
    model: nn.Module,  # noqa: ARG001
    local: LocalTraining,
    sizes: Sequence[int],
) -> None:
    """Refuse a setting in which the guarantee does not hold, or ends before round 1."""
    _check_sizes(local, sizes, accounting.delta)
    if max_epsilon is None:
        return
    first = accounting.epsilon(local, min(sizes), 1)
    if first > max_epsilon:
        raise ValueError(
            f"dp-sgd.max_epsilon: must be at least {first:.3g}, the ε of the smallest client's "
            f"first round, got {max_epsilon:g}"
        )


def _check_sizes(local: LocalTraining, sizes: Sequence[int], delta: float) -> None:
    smallest, largest = min(sizes), max(sizes)
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


def _promise(clip: float, accounting: Accounting) -> Promise:
    """Return what is promised of an example more or less, and of a replaced one."""
    drawn = accounting.sampling == "poisson"
    strength = f"clip {clip:g}, noise multiplier {accounting.noise:g}"
    mechanism = "Poisson-subsampled Gaussian" if drawn else "Gaussian"
    twice = replace(accounting, apart=2.0)
    formal = accounting.noise > 0
    return Promise(
        statement=f"hides each example: {strength}",
        relation=Relation.ADD_OR_REMOVE_EXAMPLE if drawn else Relation.ZERO_EXAMPLE,
        mechanism=mechanism,
        delta=accounting.delta,
        epsilon=accounting.epsilon if formal else None,
        mu=accounting.mu if formal else None,
        sampled=accounting.sampled if formal else None,
        replaced=Promise(
            statement=f"hides which of two each example is: {strength}",
            relation=Relation.REPLACE_EXAMPLE,
            mechanism=mechanism,
            delta=accounting.delta,
            epsilon=twice.epsilon if formal else None,
            mu=twice.mu if formal else None,
            sampled=twice.sampled if formal else None,
        ),
    )


def _normal(like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=generator)


DEFENSE = Entry("dp-sgd", dp_sgd, paper="Abadi et al., CCS 2016")
