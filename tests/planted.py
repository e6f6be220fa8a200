"""Bugs that were planted in differentially private code, for audits to catch.

Each is a link of a chain that claims what the right one claims. `tests/benchmarks/planted_bugs.py`
audits all of them.
"""

from dataclasses import replace

import torch
from torch import Tensor

from defenses import Defense, dp_sgd, gaussian
from defenses.dp_sgd import clipped_sum
from fedsim.core.params import norm


def forgotten_bias(*, std: float = 1.0) -> Defense:
    """Noise on every tensor but the last, the bias of the head."""

    def apply(params, state, generator):
        last = list(params)[-1]
        out, state = gaussian(std=std).apply(params, state, generator)
        return {**out, last: params[last]}, state

    return replace(gaussian(std=std), name="forgotten-bias", apply=apply)


def rare_failure(*, std: float = 1.0, rate: float = 0.05) -> Defense:
    """No noise at all in one upload of twenty."""

    def apply(params, state, generator):
        if float(torch.rand((), generator=generator)) < rate:
            return dict(params), state
        return gaussian(std=std).apply(params, state, generator)

    return replace(gaussian(std=std), name="rare-failure", apply=apply)


def by_count(*, clip: float = 1.0, noise: float = 1.0) -> Defense:
    """DP-SGD that divides by the number of records that came, not by the batch size."""

    def gradient(model, parameters, inputs, labels, local, generator) -> list[Tensor]:
        total = clipped_sum(model, parameters, inputs, labels, clip=clip)
        count = max(1, len(labels))
        return [
            (value + noise * clip * torch.randn(value.shape, generator=generator)) / count
            for value in total.values()
        ]

    return replace(dp_sgd(clip=clip, noise=noise), name="by-count", gradient=gradient)


def half_precision(*, std: float = 1.0) -> Defense:
    """Noise that is drawn in bfloat16."""

    def apply(params, state, generator):
        noise = {n: std * torch.randn(v.shape, generator=generator) for n, v in params.items()}
        return {n: v + noise[n].bfloat16().float() for n, v in params.items()}, state

    return replace(gaussian(std=std), name="half-precision", apply=apply)


def clipped_tensors(*, bound: float = 1.0) -> Defense:
    """Every tensor is clipped to the bound of the whole update."""

    def apply(params, state, generator):
        return {
            name: value * (bound / value.norm().clamp(min=1e-12)).clamp(max=1.0)
            for name, value in params.items()
        }, state

    return Defense(name="clipped-tensors", apply=apply, bound=lambda before: min(before, bound))


def momentum_after_clip(*, bound: float = 1.0, momentum: float = 0.9) -> Defense:
    """The update is clipped, and then momentum is added to it."""

    def init(params):
        return {name: torch.zeros_like(value) for name, value in params.items()}

    def apply(params, state, generator):
        scale = (bound / norm(params).clamp(min=1e-12)).clamp(max=1.0)
        after = {name: momentum * state[name] + scale * value for name, value in params.items()}
        return after, after

    return Defense(
        name="momentum-after-clip",
        apply=apply,
        init=init,
        bound=lambda before: min(before, bound),
    )


def one_draw(*, std: float = 1.0) -> Defense:
    """One normal number for all entries of a tensor."""

    def apply(params, state, generator):
        draws = {name: std * torch.randn((), generator=generator) for name in params}
        return {name: value + draws[name] for name, value in params.items()}, state

    return replace(gaussian(std=std), name="one-draw", apply=apply)


def same_seeds(*, std: float = 1.0) -> Defense:
    """Every tensor's noise is drawn from the same seed, new in every upload."""

    def apply(params, state, generator):
        seed = int(torch.randint(2**31, (), generator=generator))
        stream = lambda: torch.Generator().manual_seed(seed)
        return {
            name: value + std * torch.randn(value.shape, generator=stream())
            for name, value in params.items()
        }, state

    return replace(gaussian(std=std), name="same-seeds", apply=apply)
