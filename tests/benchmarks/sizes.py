"""Recursive reconstruction by size of the picture: CPU-seconds, peak memory, PSNR beside blind.

    uv run python -m tests.benchmarks.sizes [--sizes 32,64] [--images N] [--nets NAME,…]
        [--attacks r-gap,hybrid] [--precision single,double]

Square crops of photographs, resized; of 32×32 pixels the first images of CIFAR-10. Each net is one
of the papers' convolutions with its activation and a linear head, initial weights, one example.
PSNR is in dB on pixels in [0, 1], ± the standard error over images; blind is a grey picture of the
mean brightness of all other images. Every row runs in a process of its own, whose peak of memory
is read, with and without the attack.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from adversary.attacks import ATTACKS
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary
from tests.benchmarks.record import record
from tests.builders import observe, plain_gradient
from tests.real_data import cifar_part, present

CLASSES = 10
# (in, out, kernel, stride, padding) of each convolution, activation, whether convolutions have
# biases.
NETS: dict[str, tuple[Sequence[tuple[int, int, int, int, int]], type[nn.Module], bool]] = {
    "lenet-1": (((3, 12, 5, 2, 2),), nn.Sigmoid, True),
    "cnn2_c1": (((3, 6, 3, 1, 0),), nn.Tanh, False),
    "cnn2_c2": (((3, 6, 4, 2, 0),), nn.Tanh, False),
    "cnn2_c5": (((3, 3, 3, 1, 1),), nn.Tanh, False),
    "cnn3_c3": (((3, 6, 3, 1, 0), (6, 9, 3, 1, 0)), nn.Tanh, False),
}
CIFAR = 32


@dataclass(frozen=True)
class Row:
    """What one attack recovers of pictures of one size.

    Attributes:
        psnr: Of each image, in dB.
        blind: Of each image.
        seconds: CPU-seconds of each image.
        before: Peak memory of the process before the attack, in MB.
        peak: With it.
    """

    psnr: Sequence[float]
    blind: Sequence[float]
    seconds: Sequence[float]
    before: float
    peak: float


def photographs(size: int, count: int) -> Tensor:
    """Return pictures, (count, 3, size, size), in [0, 1]."""
    if size == CIFAR:
        return cifar_part().inputs[:count]
    pictures = []
    for path in sorted(present("photos").glob("*.png"))[:count]:
        with Image.open(path) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            pixels = np.array(square.resize((size, size), Image.Resampling.LANCZOS))
        pictures.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
    return torch.stack(pictures)


def network(name: str, size: int) -> nn.Sequential:
    """Return a network for pictures of one size, initial weights."""
    convs, activation, bias = NETS[name]
    with global_stream(0, "network", name):
        layers: list[nn.Module] = []
        for shape in convs:
            layers += [nn.Conv2d(*shape, bias=bias), activation()]
        layers.append(nn.Flatten())
        flat = nn.Sequential(*layers)(torch.zeros(1, 3, size, size)).shape[1]
        model = nn.Sequential(*layers, nn.Linear(flat, CLASSES))
        if bias:  # as in "Deep leakage from gradients"
            for parameter in model.parameters():
                nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def attacked(name: str, size: int, attack: str, *, images: int, double: bool) -> Row:
    """Return what an attack recovers, one picture after another."""
    torch.set_num_threads(1)
    pictures, model = photographs(size, images), network(name, size)
    dtype = torch.float64 if double else torch.float32
    views = []
    for picture in pictures:
        gradient = plain_gradient(model.to(dtype), picture[None].to(dtype), torch.tensor([3]))
        views.append(observe(gradient, 1, sent=model))
    auxiliary = Auxiliary(model, CLASSES, input_shape=(3, size, size))
    before, psnr, seconds, blind = _peak(), [], [], []
    for place, (view, picture) in enumerate(zip(views, pictures, strict=True)):
        begun = time.process_time()
        guess = ATTACKS[attack].infer(view, auxiliary, generator(0, place))
        seconds.append(time.process_time() - begun)
        psnr.append(_psnr(guess[0], picture))
        others = torch.cat([pictures[:place], pictures[place + 1 :]])
        grey = float(others.mean()) if len(others) else 0.5
        blind.append(_psnr(torch.full_like(picture, grey), picture))
    return Row(psnr, blind, seconds, before, _peak())


def _psnr(guess: Tensor, picture: Tensor) -> float:
    error = (guess.double().clamp(0, 1) - picture.double()).square().mean()
    return float(-10 * error.clamp(min=1e-300).log10())


def _peak() -> float:
    """Return the most memory that this process had, in MB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _mean(values: Sequence[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):6.1f} ± {error:4.1f}"


def _worker(*given: object) -> Row:
    name, size, attack, images, double = given
    return attacked(name, size, attack, images=images, double=double)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="32,64,128,224")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--attacks", default="r-gap,hybrid")
    parser.add_argument("--precision", default="single,double")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    print(
        "net       size  attack  gradients   PSNR dB        blind dB       CPU-s   MB before, peak"
    )
    for name in options.nets.split(","):
        for size in map(int, options.sizes.split(",")):
            for attack in options.attacks.split(","):
                for precision in options.precision.split(","):
                    given = (name, size, attack, options.images, precision == "double")
                    with spawn.Pool(1) as pool:
                        row = pool.apply(_worker, given)
                    label = f"{name} {size} {attack} {precision}"
                    cpu = statistics.fmean(row.seconds)
                    print(
                        f"{name:8} {size:5}  {attack:6}  {precision:6}  {_mean(row.psnr)}  "
                        f"{_mean(row.blind)}  {cpu:7.1f}  {row.before:6.0f} {row.peak:6.0f}",
                        flush=True,
                    )
                    figures = {
                        f"{label}: mean PSNR, dB": statistics.fmean(row.psnr),
                        f"{label}: blind PSNR, dB": statistics.fmean(row.blind),
                        f"{label}: CPU-seconds an image": cpu,
                        f"{label}: peak memory, MB": row.peak,
                    }
                    record("sizes", figures)


if __name__ == "__main__":
    main()
