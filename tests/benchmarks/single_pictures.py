"""Attacks that recover one picture exactly or nearly: PSNR beside blind, CPU-seconds, memory.

    uv run python -m tests.benchmarks.single_pictures [ROW …] [--images N] [--types float32 …]

Clients hold one image each, the first of the lossless part of CIFAR-10; one gradient at initial
weights. A ROW is an attack and a net, as "r-gap, lenet"; `ROWS` has them all. PSNR is in dB on
pixels in [0, 1], ± the standard error over images, with the least and the largest; blind is the
mean test image. Memory is the peak of the process so far.
"""

import argparse
import math
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from adversary.attacks import ATTACKS
from fedsim.core.errors import remarks_of_attacks
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate
from fedsim.models.mlp import mlp
from tests.adversary.inversion.networks import named
from tests.benchmarks.record import record
from tests.builders import observe, plain_gradient
from tests.real_data import cifar_part

SHAPE, CLASSES = (3, 32, 32), 10


def perceptron(dtype: torch.dtype) -> nn.Module:
    """The catalog's two-layer perceptron."""
    with global_stream(0, "network", "mlp"):
        return mlp(SHAPE, CLASSES).to(dtype)


def narrowing(dtype: torch.dtype) -> nn.Module:
    """Two convolutions, 3 → 6 → 4 channels: the second leaves its input open, all layers do not."""
    with global_stream(0, "network", "narrowing"):
        model = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Tanh()),
            *(nn.Conv2d(6, 4, 3, bias=False), nn.Tanh()),
            *(nn.Flatten(), nn.Linear(4 * 30 * 30, CLASSES)),
        )
    return model.to(dtype)


def of_paper(name: str) -> Callable[[torch.dtype], nn.Module]:
    """Return what makes a net of the papers."""
    return lambda dtype: named(name, dtype=dtype)


ROWS: dict[str, tuple[str, Callable[[torch.dtype], nn.Module]]] = {
    "analytic, mlp": ("analytic", perceptron),
    "r-gap, lenet": ("r-gap", of_paper("lenet")),
    "r-gap, cnn6": ("r-gap", of_paper("cnn6")),
    "r-gap, cnn2_c2": ("r-gap", of_paper("cnn2_c2")),
    "hybrid, cnn2_c2": ("hybrid", of_paper("cnn2_c2")),
    "joint, narrowing": ("joint", narrowing),
    "joint, lenet": ("joint", of_paper("lenet")),
    "dlg, lenet": ("dlg", of_paper("lenet")),
}


def psnr(guess: Tensor, x: Tensor) -> float:
    """Return the peak signal-to-noise ratio; of equal pictures 350 dB."""
    error = float((guess.double() - x.double()).square().mean())
    return -10 * math.log10(max(error, 1e-35))


def row(title: str, images: int, kind: str) -> None:
    """Print and record what an attack recovers of one picture after another."""
    attack, make = ROWS[title]
    data, dtype = cifar_part(), getattr(torch, kind)
    model = make(dtype)
    auxiliary = Auxiliary(model, CLASSES, input_shape=SHAPE)
    mean = data.test_inputs.mean(dim=0, keepdim=True)
    values, blind, seconds = [], [], []
    said = set[str]()
    for place in range(images):
        x, y = data.inputs[place : place + 1], data.labels[place : place + 1]
        view = observe(plain_gradient(model, x.to(dtype), y), 1, sent=model)
        begun = time.process_time()
        with remarks_of_attacks() as remarks:
            guess = ATTACKS[attack].infer(view, auxiliary, generator(0, place))
        seconds.append(time.process_time() - begun)
        said |= set(remarks)
        values.append(psnr(guess.values if isinstance(guess, Estimate) else guess, x))
        blind.append(psnr(mean, x))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{title}, {kind}: {shown(values)} dB ({min(values):.1f} to {max(values):.1f}), blind "
        f"{shown(blind)} dB, {shown(seconds)} CPU-s, {peak:.0f} MB, {images} images",
        *sorted(said)[:3],
        sep="\n    ",
        flush=True,
    )
    record("single_pictures", {f"{title}, {kind}: mean PSNR, dB": statistics.fmean(values)})


def shown(values: list[float]) -> str:
    """Return the mean and its standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.2f} ± {error:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=list(ROWS), metavar="ROW")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--types", nargs="+", default=["float64", "float32"])
    asked = parser.parse_args()
    if unknown := set(asked.rows) - set(ROWS):
        parser.error(f"ROW: {', '.join(sorted(unknown))}: choose from {', '.join(ROWS)}")
    torch.set_num_threads(1)
    for kind in asked.types:
        for title in asked.rows:
            row(title, asked.images, kind)


if __name__ == "__main__":
    main()
