"""SPEAR by size of the batch: share of batches that it solves, PSNR, draws and CPU-seconds.

    uv run python -m tests.benchmarks.spear [--batches N] [--sizes B …] [--types float32 …]

Batches are drawn from CIFAR-10's lossless part and from MNIST; a net of one hidden layer with
PyTorch's own initial weights. Beside the draws stands how many SPEAR's theory expects of draws of
any rows (`expected_draws`, from the true zeros), and the median of the batches is taken of both.
PSNR is the worst picture's of each batch, averaged over the batches that were solved; blind is the
mean test picture's.
"""

import argparse
import math
import time
from statistics import fmean, median, stdev

import torch
from torch import Tensor, nn

from adversary.attacks.spear import spear
from adversary.inversion.relu_batch import expected_draws
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.data import Dataset
from tests.benchmarks.record import record
from tests.real_data import cifar_part, mnist

UNITS = {1: (200,), 2: (200,), 4: (200,), 8: (200,), 16: (200,), 32: (200, 400), 64: (1000,)}
CLASSES = 10


def victim(
    data: Dataset, size: int, units: int, place: int, dtype: torch.dtype
) -> tuple[View, Auxiliary, Tensor, Tensor]:
    """Return the view, the adversary, the pictures, and how often each is inactive of how many."""
    shape = tuple(data.inputs.shape[1:])
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape), units), nn.ReLU(), nn.Linear(units, CLASSES)
    )
    with global_stream(place, "net", units):
        for layer in (model[1], model[3]):
            layer.reset_parameters()  # type: ignore[operator]
    rows = torch.randperm(len(data.inputs), generator=generator(place, "rows", size))[:size]
    x, y = data.inputs[rows].to(dtype), data.labels[rows]
    model = model.to(dtype)
    loss = nn.functional.cross_entropy(model(x), y)
    names = [name for name, _ in model.named_parameters()]
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    sent = {name: value.detach().clone() for name, value in model.state_dict().items()}
    update = Update(1, "0", dict(zip(names, slopes, strict=True)), size)
    view = View([Observation(sent, update, LocalTraining(0.1, size, upload="gradient"))])
    with torch.no_grad():
        inactive = model[:2](x) <= 0
    inactive = inactive[:, ~inactive.all(dim=0)]
    counts = torch.cat([inactive.sum(dim=1), torch.tensor([inactive.shape[1]])])
    return view, Auxiliary(model, CLASSES, input_shape=shape), x, counts


def row(name: str, data: Dataset, size: int, units: int, batches: int, dtype: torch.dtype) -> None:
    """Print and record one row."""
    worst, seconds, theory, refused = [], [], [], []
    mean = data.test_inputs.double().mean(dim=0)
    blind = []
    for place in range(batches):
        view, auxiliary, x, counts = victim(data, size, units, place, dtype)
        theory.append(expected_draws(counts[:-1], int(counts[-1])))
        blind.append(_decibels((x - mean).square().flatten(1).mean(dim=1)))
        begun = time.process_time()
        try:
            guess = spear(view, auxiliary, generator(place, "spear"))
        except ValueError as reason:
            refused.append(str(reason))
        else:
            apart = (guess.flatten(1)[:, None] - x.flatten(1)[None]).square().mean(dim=2)
            worst.append(_decibels(apart.amin(dim=0).max()[None]))
        seconds.append(time.process_time() - begun)
    kind = "float64" if dtype == torch.float64 else "float32"
    label = f"{name} B={size} units={units} {kind}"
    share, decibels = len(worst) / batches, fmean(worst) if worst else math.nan
    error = stdev(worst) / len(worst) ** 0.5 if len(worst) > 1 else math.nan
    print(
        f"{label}: {len(worst)}/{batches} solved, {decibels:.0f} ± {error:.1f} dB (blind "
        f"{fmean(blind):.1f}), {fmean(seconds):.2f} CPU-s, any rows {median(theory):.1e} draws"
        + "".join(f"\n    {reason}" for reason in refused),
        flush=True,
    )
    record(
        "spear",
        {
            f"{label}: share solved": share,
            f"{label}: worst PSNR, dB": decibels,
            f"{label}: CPU-s": fmean(seconds),
            f"{label}: expected draws of any rows": median(theory),
        },
    )


def _decibels(error: Tensor) -> float:
    return float(-10 * error.clamp(min=1e-35).log10().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(UNITS))
    parser.add_argument("--types", nargs="+", default=["float64", "float32"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for dtype in (getattr(torch, kind) for kind in asked.types):
        for name, data in (("CIFAR-10", cifar_part()), ("MNIST", mnist())):
            for size in asked.sizes:
                for units in UNITS.get(size, (1000,)):
                    row(name, data, size, units, asked.batches, dtype)


if __name__ == "__main__":
    main()
