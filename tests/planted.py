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


def touched_only(*, std: float = 1.0) -> Defense:
    """Noise on the entries that training has moved, and on no others."""

    def apply(params, state, generator):
        out, state = gaussian(std=std).apply(params, state, generator)
        return {n: torch.where(v == 0, v, out[n]) for n, v in params.items()}, state

    return replace(gaussian(std=std), name="touched-only", apply=apply)


def seeded_by_update(*, std: float = 1.0) -> Defense:
    """Noise from a seed that is computed from the update: the same for the same update."""

    def apply(params, state, generator):
        total = sum(float(value.double().sum()) for value in params.values())
        stream = torch.Generator().manual_seed(int(abs(total) * 1e6))
        return gaussian(std=std).apply(params, state, stream)

    return replace(gaussian(std=std), name="seeded-by-update", apply=apply)


def truncated(*, std: float = 1.0, at: float = 2.0) -> Defense:
    """Noise that is cut off at two standard deviations."""

    def apply(params, state, generator):
        noise = {n: torch.randn(v.shape, generator=generator) for n, v in params.items()}
        return {n: v + std * noise[n].clamp(-at, at) for n, v in params.items()}, state

    return replace(gaussian(std=std), name="truncated", apply=apply)


def uniform(*, std: float = 1.0) -> Defense:
    """Uniform noise of the same standard deviation."""

    def apply(params, state, generator):
        noise = {n: torch.rand(v.shape, generator=generator) for n, v in params.items()}
        return {n: v + std * 12**0.5 * (noise[n] - 0.5) for n, v in params.items()}, state

    return replace(gaussian(std=std), name="uniform", apply=apply)


def noise_then_clip(*, std: float = 1.0, bound: float = 0.5) -> Defense:
    """The noised update is clipped again, and the claim is of noise on every entry."""

    def apply(params, state, generator):
        out, state = gaussian(std=std).apply(params, state, generator)
        scale = (bound / norm(out)).clamp(max=1.0)
        return {name: scale * value for name, value in out.items()}, state

    return replace(gaussian(std=std), name="noise-then-clip", apply=apply)


def decaying(*, std: float = 1.0) -> Defense:
    """Noise that is a quarter as large in each round as in the one before."""

    def apply(params, state, generator):
        out, _ = gaussian(std=std * float(state["factor"])).apply(params, {}, generator)
        return out, {"factor": state["factor"] / 4}

    init = lambda params: {"factor": torch.tensor(1.0)}
    return replace(gaussian(std=std), name="decaying", apply=apply, init=init)


def bare_at_last(*, std: float = 1.0, rounds: int = 2) -> Defense:
    """Noise in every round but the last."""

    def apply(params, state, generator):
        last = int(state["round"]) == rounds
        out = dict(params) if last else gaussian(std=std).apply(params, {}, generator)[0]
        return out, {"round": state["round"] + 1}

    init = lambda params: {"round": torch.tensor(1)}
    return replace(gaussian(std=std), name="bare-at-last", apply=apply, init=init)


def clamped(*, bound: float = 1.0) -> Defense:
    """Every entry is clamped to the bound, in place of the norm."""
    apply = lambda params, state, _: ({n: v.clamp(-bound, bound) for n, v in params.items()}, state)
    return Defense(name="clamped", apply=apply, bound=lambda before: min(before, bound))


def weights_clipped(*, bound: float = 1.0) -> Defense:
    """Weights are clipped together, biases not at all."""

    def apply(params, state, generator):
        weights = {name: value for name, value in params.items() if value.ndim > 1}
        scale = (bound / norm(weights).clamp(min=1e-12)).clamp(max=1.0)
        return {n: scale * v if v.ndim > 1 else v for n, v in params.items()}, state

    return Defense(name="weights-clipped", apply=apply, bound=lambda before: min(before, bound))


def error_feedback(*, bound: float = 1.0) -> Defense:
    """What the clip cut off is added after the clip in the next round."""

    def init(params):
        return {name: torch.zeros_like(value) for name, value in params.items()}

    def apply(params, state, generator):
        scale = (bound / norm(params).clamp(min=1e-12)).clamp(max=1.0)
        out = {name: scale * value + state[name] for name, value in params.items()}
        return out, {name: (1 - scale) * value for name, value in params.items()}

    name = "error-feedback"
    return Defense(name=name, apply=apply, init=init, bound=lambda before: min(before, bound))


def _hooked(name: str, clip: float, noise: float, times, *, pairs: bool = False) -> Defense:
    """DP-SGD with noise · times(batch size), that clips the sums of two records if `pairs`."""

    def gradient(model, parameters, inputs, labels, local, generator) -> list[Tensor]:
        std = noise * clip * times(local.batch_size)
        step = 2 if pairs else 1
        total = [torch.zeros_like(value) for value in parameters.values()]
        for start in range(0, len(labels), step):
            rows = slice(start, start + step)
            each = clipped_sum(model, parameters, inputs[rows], labels[rows], clip=float("inf"))
            scale = (clip / norm(each).clamp(min=1e-12)).clamp(max=1.0)
            total = [one + scale * two for one, two in zip(total, each.values(), strict=True)]
        return [
            (value + std * torch.randn(value.shape, generator=generator)) / local.batch_size
            for value in total
        ]

    return replace(dp_sgd(clip=clip, noise=noise), name=name, gradient=gradient)


def wrong_batch(*, clip: float = 1.0, noise: float = 1.0) -> Defense:
    """DP-SGD whose noise is divided by the batch size twice."""
    return _hooked("wrong-batch", clip, noise, lambda size: 1 / size)


def clipped_pairs(*, clip: float = 1.0, noise: float = 1.0) -> Defense:
    """DP-SGD that clips sums of two records, not records."""
    return _hooked("clipped-pairs", clip, noise, lambda _: 1.0, pairs=True)


def once_an_epoch(*, clip: float = 1.0, noise: float = 1.0, steps: int = 2) -> Defense:
    """DP-SGD that adds noise in the first of every so many steps."""
    calls = [0]

    def times(_):
        calls[0] += 1
        return float(calls[0] % steps == 1)

    return _hooked("once-an-epoch", clip, noise, times)


def unsampled(*, clip: float = 1.0, noise: float = 1.0) -> Defense:
    """DP-SGD that takes the same first records in every step, and claims Poisson sampling."""

    def batches(count, local, generator):
        steps = local.epochs * -(-count // local.batch_size)
        return [torch.arange(min(count, local.batch_size))] * steps

    return replace(dp_sgd(clip=clip, noise=noise), name="unsampled", batches=batches)


def shuffled(*, clip: float = 1.0, noise: float = 1.0) -> Defense:
    """DP-SGD that shuffles in every epoch, and claims Poisson sampling."""

    def batches(count, local, generator):
        rows = [torch.randperm(count, generator=generator) for _ in range(local.epochs)]
        return [batch for each in rows for batch in each.split(local.batch_size)]

    return replace(dp_sgd(clip=clip, noise=noise), name="shuffled", batches=batches)


def sampled_once(*, clip: float = 1.0, noise: float = 1.0) -> Defense:
    """DP-SGD that draws one batch in a round, and takes it in every step."""
    honest = dp_sgd(clip=clip, noise=noise)

    def batches(count, local, generator):
        steps = honest.batches(count, local, generator)
        return steps[:1] * len(steps)

    return replace(honest, name="sampled-once", batches=batches)


def touched_rows(*, clip: float = 1.0, noise: float = 1.0) -> Defense:
    """DP-SGD whose noise skips rows without a gradient, as of token tables kept sparse."""

    def gradient(model, parameters, inputs, labels, local, generator) -> list[Tensor]:
        total = clipped_sum(model, parameters, inputs, labels, clip=clip)
        return [
            (value + noise * clip * torch.randn(value.shape, generator=generator) * touched(value))
            / local.batch_size
            for value in total.values()
        ]

    def touched(value: Tensor) -> Tensor:
        return (value != 0).any(dim=1, keepdim=True) if value.ndim > 1 else value != 0

    return replace(dp_sgd(clip=clip, noise=noise), name="touched-rows", gradient=gradient)
