"""Defenses that are not what they claim, for audits to find out."""

from dataclasses import replace

import torch
from torch import Tensor

from defenses import Defense, dp_sgd, gaussian
from fedsim.core.sgd import mean_gradient


def half_noise(*, clip: float = 1.0, noise: float = 1.0) -> Defense:
    """DP-SGD with half the noise that it claims."""
    real, claimed = dp_sgd(clip=clip, noise=noise / 2), dp_sgd(clip=clip, noise=noise)
    return replace(real, name="half-noise", promise=claimed.promise)


def late_clip(*, clip: float = 1.0, noise: float = 1.0) -> Defense:
    """DP-SGD that clips the mean gradient, after averaging."""
    claimed = dp_sgd(clip=clip, noise=noise)

    def gradient(model, parameters, inputs, labels, local, generator) -> list[Tensor]:
        found = (
            mean_gradient(model, parameters, inputs, labels, local, generator)
            if len(labels)
            else [torch.zeros_like(value) for value in parameters.values()]
        )
        length = torch.stack([value.square().sum() for value in found]).sum().sqrt()
        scale = (clip / length.clamp(min=1e-12)).clamp(max=1.0)
        std = noise * clip / local.batch_size
        return [
            value * scale + std * torch.randn(value.shape, generator=generator) for value in found
        ]

    return replace(claimed, name="late-clip", gradient=gradient)


def same_noise(*, std: float = 1.0) -> Defense:
    """Gaussian noise from a seed of its own: the same in every run and round."""

    def apply(params, state, generator):
        return gaussian(std=std).apply(params, state, torch.Generator().manual_seed(7))

    return replace(gaussian(std=std), name="same-noise", apply=apply)


def remembered_noise(*, std: float = 1.0) -> Defense:
    """Gaussian noise that a client draws once, and adds in every round."""

    def apply(params, state, generator):
        if not bool(state["drawn"]):
            drawn = {n: std * torch.randn(v.shape, generator=generator) for n, v in params.items()}
            state = {"drawn": torch.tensor(True), **drawn}
        return {name: value + state[name] for name, value in params.items()}, state

    def init(params):
        return {"drawn": torch.tensor(False), **{n: torch.zeros_like(v) for n, v in params.items()}}

    return replace(gaussian(std=std), name="remembered-noise", apply=apply, init=init)


def half_gaussian(*, std: float = 1.0) -> Defense:
    """Gaussian noise with half the standard deviation that it claims."""
    return replace(gaussian(std=std / 2), name="half-gaussian", noise=std)


def no_clip(*, bound: float = 1.0) -> Defense:
    """A clip that does nothing."""
    return Defense(name="no-clip", bound=lambda before: min(before, bound))
