"""What an architecture gives away, without any data: in numbers and in words."""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import log10

import torch
from torch import Tensor, nn

from adversary.inversion.identifiability import metric
from adversary.inversion.jacobian import Spectrum
from adversary.inversion.jacobian import spectrum as spectrum_of
from adversary.inversion.obstacles import obstacles
from adversary.inversion.precision import errors, gradients, levels
from fedsim import models
from fedsim.config import Config
from fedsim.core.errors import ConfigError, one_line
from fedsim.core.rng import generator, global_stream, threads
from fedsim.core.types import LocalTraining
from fedsim.explain.explanation import Explanation, Shape
from fedsim.explain.layers import others_of, systems_of
from fedsim.explain.unseen import unseen
from fedsim.explain.verdict import judge, open_layer_of

MOST_INPUTS = 4096  # every direction is looked at up to this many entries of the input,
MOST_WEIGHTS = 30_000_000  # and up to this many parameters; of larger models, some directions
FEW = 256  # random directions
INPUTS = 3  # at which directions must all be hidden
LARGE = 1_000_000  # parameters, from which on J is computed in float32


def explain(
    config: Config,
    shape: Shape,
    num_classes: int,
    local: LocalTraining,
    *,
    num_examples: int = 1,
    noise: float = 0.0,
    directions: int | None = None,
    on_chunk: Callable[[int, int], None] = lambda *_: None,
) -> Explanation:
    """Return what the config's model gives away of one input of uniform random pixels.

    Args:
        config: Its model and seed are used.
        shape: Shape of one input.
        num_classes: Number of labels.
        local: How clients train.
        num_examples: Number of a client's examples.
        noise: Standard deviation of noise on every entry of the gradient.
        directions: Number of input directions to look at; 0 for the closed forms alone. None for
            all, or for some drawn at random if all would take minutes.
        on_chunk: Called with the number of directions done, and of all.

    Raises:
        ConfigError: There is no such model, or it cannot take such inputs.
    """
    with threads(config.engine.threads), global_stream(config.seed, "explain"):
        model = models.build(config.model, shape, num_classes, seed=config.seed)
        at = torch.rand(shape, generator=generator(config.seed, "explain", "input"))
        start = time.perf_counter()
        systems, stop, chained = systems_of(model, at)
        closed = time.perf_counter() - start
        hard = obstacles(model, shape, local, num_examples, at)
        spectrum, psnr = None, None
        if directions != 0:
            spectrum, psnr = _spectrum(
                model,
                at,
                config.seed,
                local,
                noise=noise,
                directions=directions,
                on_chunk=on_chunk,
            )
    return Explanation(
        name=config.model.name,
        shape=shape,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        systems=systems,
        others=others_of(model, systems),
        metric=metric(systems) if chained and any(it.kind == "conv" for it in systems) else None,
        stop=stop,
        spectrum=spectrum,
        psnr=psnr,
        obstacles=hard,
        verdict=judge(
            systems,
            spectrum,
            stop=stop,
            open_layer=open_layer_of(model) if chained else None,
            chained=chained,
            unseen=list(unseen(model, at, num_classes)),
        ),
        seconds=closed,
    )


def _spectrum(
    model: nn.Module,
    at: Tensor,
    seed: int,
    local: LocalTraining,
    *,
    noise: float,
    directions: int | None,
    on_chunk: Callable[[int, int], None],
) -> tuple[Spectrum, float | None]:
    """Return the singular values of d(gradient)/d(input), and the PSNR that one upload allows."""
    weights = sum(p.numel() for p in model.parameters())
    if directions is None and (weights > MOST_WEIGHTS or at.numel() > MOST_INPUTS):
        directions = FEW
    still = copy.deepcopy(model).eval()
    double = copy.deepcopy(still).double()
    # float32 takes a fifth of the time, and tells singular values over 4.5 decades instead of 6.
    probed = copy.deepcopy(still) if weights > LARGE else double
    rounding = errors(still, at, 0, upload=local.upload, lr=local.lr)
    noisy = levels(rounding, gradients(double, at.double(), 0), noise)
    look = partial(
        spectrum_of,
        probed,
        label=0,
        generator=generator(seed, "explain", "projection"),
        directions=directions,
        on_chunk=on_chunk,
    )
    dtype = next(probed.parameters()).dtype
    try:
        first = look(at.to(dtype), noise=[noisy])
        values = _at_others(first, look, at.to(dtype), seed)
    except RuntimeError as error:  # a user's layer without a second derivative
        raise ConfigError(f"model: must be differentiable twice ({one_line(error)})") from None
    return values, -10 * log10(first.mse[0]) if first.mse else None


def _at_others(
    first: Spectrum, look: Callable[[Tensor], Spectrum], at: Tensor, seed: int
) -> Spectrum:
    """Return the spectrum of the highest rank at a few inputs, if the first one hides directions.

    What a unit that is off hides at one input need not be hidden at another.
    """
    best = first
    for number in range(1, INPUTS):
        if best.hidden is None or not len(best.hidden) or best.underived is not None:
            break
        stream = generator(seed, "explain", "input", number)
        other = look(torch.rand(at.shape, generator=stream).to(at.dtype))
        best = replace(max(best, other, key=lambda it: it.rank), underived=other.underived)
    return best
