"""What `fedsim explain` says of eleven architectures, beside what attacks recover from them.

    uv run python -m tests.benchmarks.architectures [NAME …]

One input of random pixels, its label known, in evaluation mode, initial weights. Attacks see its
gradient in float32. The joint attack starts from grey and from noise, and the start of the least
residual counts. Nearby means: the gradient in float64, and a start 10⁻⁴ away from the input. Where
J has full rank the attack must end at the input. Smooth variants have tanh or GELU in place of
ReLU, and means in place of maxima. Matching is inverting-gradients without total variation; it sees
the gradient of training mode, in which batch norm takes the statistics of this one input.
"""

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log10

import torch
from torch import Tensor, nn

from adversary.attacks import ATTACKS
from adversary.inversion.joint import Fit, gauss_newton, of_gradient
from adversary.inversion.precision import gradients
from fedsim import config as configs
from fedsim import explain, models
from fedsim.core.doubled import doubled
from fedsim.core.form import Form
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining, Params
from fedsim.explain import Explanation
from tests.benchmarks.record import record
from tests.builders import observe

IMAGE, SEQUENCE, CLASSES = (3, 8, 8), (12, 8), 10
Shape = tuple[int, ...]

# Name, what the config sets besides, the shape of an input.
SMOOTH, NORM = "model.smooth=true", "model.norm=true"
ARCHITECTURES: dict[str, tuple[Sequence[str], Shape]] = {
    "mlp": ((), IMAGE),
    "mlp smooth": ((SMOOTH,), IMAGE),
    "lenet": ((), IMAGE),
    "lenet smooth": ((SMOOTH,), IMAGE),
    "vgg": ((), IMAGE),
    "vgg smooth": ((SMOOTH,), IMAGE),
    "resnet": ((), IMAGE),
    "resnet smooth": ((SMOOTH,), IMAGE),
    "resnet batch-norm": ((NORM,), IMAGE),
    "resnet batch-norm smooth": ((NORM, SMOOTH), IMAGE),
    "mobilenet": ((), IMAGE),
    "mobilenet smooth": ((SMOOTH,), IMAGE),
    "vit": ((), IMAGE),
    "vit smooth": ((SMOOTH,), IMAGE),
    "conv1d": ((), SEQUENCE),
    "conv1d smooth": ((SMOOTH,), SEQUENCE),
    "text_transformer": ((), SEQUENCE),
    "text_transformer smooth": ((SMOOTH,), SEQUENCE),
    "lstm": ((), SEQUENCE),
    "gru": ((), SEQUENCE),
    "strided": ((), IMAGE),
}

ONE = LocalTraining(lr=0.1, batch_size=1, upload="gradient")
LABEL = torch.tensor([1])
STARTS, SPREAD = 2, 0.2  # of the joint attack: grey, then that noise around it
NEARBY = 1e-4  # standard deviation
ITERATIONS = 300  # of matching
LEAST = 1e-15  # squared error that is none


@dataclass(frozen=True)
class Recovered:
    """What attacks recover.

    Attributes:
        joint: PSNR from the gradient in float32, in dB.
        error: Relative, from the gradient in float64 and a start nearby.
        exact: Whether the input in float32 is then equal to the bit.
        matching: PSNR of matching.
    """

    joint: float
    error: float
    exact: bool
    matching: float


def explained(name: str) -> Explanation:
    """Return what `fedsim explain` says of an architecture."""
    _, shape = ARCHITECTURES[name]
    return explain.explain(_config(name), shape, CLASSES, ONE)


def nearby(name: str) -> tuple[Tensor, Tensor]:
    """Return where the joint attack ends from a start nearby, and the input."""
    model, x = _attacked(name)
    twin = doubled(model)
    exact = gradients(twin, x[0].double(), 1)
    away = torch.randn(x.shape, generator=generator(0, "nearby"), dtype=torch.float64)
    return gauss_newton(_residual(twin, exact), x + NEARBY * away).inputs, x


def attacked(name: str) -> Recovered:
    """Return what attacks recover of one input."""
    _, shape = ARCHITECTURES[name]
    model, x = _attacked(name)
    seen, twin = gradients(model, x[0], 1), doubled(model)
    fit = _joint(twin, {key: value.double() for key, value in seen.items()}, shape)
    near, _ = nearby(name)
    trained = gradients(copy.deepcopy(model).train(), x[0], 1)
    view = observe(trained, 1, sent=model)
    auxiliary = Auxiliary(model, CLASSES, input_shape=shape)
    guess = ATTACKS["inverting-gradients"].infer(
        view,
        auxiliary,
        generator(0, "matching"),
        iterations=ITERATIONS,
        restarts=1,
        tv=0.0,
        rehearsals=0,
    )
    return Recovered(
        joint=_psnr(fit.inputs, x),
        error=float((near - x).norm() / x.norm()),
        exact=torch.equal(near.float(), x),
        matching=_psnr(guess, x),
    )


def _attacked(name: str) -> tuple[nn.Module, Tensor]:
    """Return the model, and an input of random pixels."""
    _, shape = ARCHITECTURES[name]
    config = _config(name)
    with global_stream(config.seed, "benchmark"):
        model = models.build(config.model, Form(shape, CLASSES), seed=config.seed).eval()
    return model, torch.rand(1, *shape, generator=generator(config.seed, "benchmark"))


def _config(name: str) -> configs.Config:
    settings, _ = ARCHITECTURES[name]
    return configs.read(
        None, [f"model=tests.benchmarks.small_models:{name.split(maxsplit=1)[0]}", *settings]
    )


def _residual(model: nn.Module, gradient: Params) -> Callable[[Tensor], Tensor]:
    sent = {name: value.detach() for name, value in model.named_parameters()}
    return of_gradient(model, sent, gradient, LABEL)


def _joint(model: nn.Module, gradient: Params, shape: Shape) -> Fit:
    stream, best = generator(0, "starts"), None
    for number in range(STARTS):
        noise = torch.randn(1, *shape, generator=stream, dtype=torch.float64)
        fit = gauss_newton(_residual(model, gradient), 0.5 + SPREAD * (number > 0) * noise)
        best = fit if best is None or fit.error < best.error else best
        if best.error < LEAST:
            break
    assert best is not None
    return best


def _psnr(guess: Tensor, x: Tensor) -> float:
    return -10 * log10(max(float((guess.clamp(0, 1) - x).double().square().mean()), LEAST))


def _row(
    name: str, results: Explanation, recovered: Recovered, seconds: tuple[float, float]
) -> str:
    spectrum = results.spectrum
    assert spectrum is not None
    cells = (
        name,
        "×".join(map(str, results.shape)),
        f"{results.parameters:,}",
        f"{spectrum.rank} of {spectrum.unknowns}",
        f"{spectrum.condition:.1e}",
        f"{results.psnr:.0f} dB",
        results.verdict.text,
        f"{recovered.joint:.0f} dB",
        "to the bit" if recovered.exact else f"{recovered.error:.0e}",
        f"{recovered.matching:.0f} dB",
        f"{seconds[0]:.0f} + {seconds[1]:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a row per architecture, and append its figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(ARCHITECTURES))
    torch.set_num_threads(1)
    for name in parser.parse_args().names:
        begun = time.process_time()
        results = explained(name)
        looked = time.process_time()
        recovered = attacked(name)
        seconds = looked - begun, time.process_time() - looked
        print(_row(name, results, recovered, seconds), flush=True)
        assert results.spectrum is not None
        record(
            "architectures",
            {
                f"{name}: rank of J": results.spectrum.rank,
                f"{name}: PSNR of joint, dB": recovered.joint,
                f"{name}: relative error from nearby": recovered.error,
                f"{name}: PSNR of matching, dB": recovered.matching,
            },
        )


if __name__ == "__main__":
    main()
