"""SPEAR and SPEAR++ by size of the batch: share of batches that they solve, PSNR and CPU-seconds.

    uv run python -m tests.benchmarks.spear [--attacks spear …] [--data CIFAR-10 …] [--batches N]
        [--sizes B …] [--types float32 …] [--seconds S]

Batches are drawn from CIFAR-10's lossless part and from MNIST; a net of one hidden layer with
PyTorch's own initial weights. Beside the draws stands how many SPEAR's theory expects of draws of
any rows (`expected_draws`, from the true zeros), and the median of the batches is taken of both.
Beside SPEAR++ stands how many times B·ln B units have a gradient: sparsely-used dictionaries are
identifiable from a multiple of B·ln B samples (D. Spielman, H. Wang, J. Wright, COLT 2012).
PSNR is the worst picture's of each batch, averaged over the batches that were solved; blind is the
mean test picture's.
"""

import argparse
import math
import time
from argparse import Namespace
from statistics import fmean, median, stdev

import torch
from torch import Tensor, nn

from adversary.attacks.spear import spear
from adversary.attacks.spear_plus_plus import spear_plus_plus
from adversary.inversion.relu_batch import expected_draws
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.data import Dataset
from tests.benchmarks.record import record
from tests.real_data import cifar_part, mnist

UNITS = {1: (200,), 2: (200,), 4: (200,), 8: (200,), 16: (200,), 32: (200, 400), 64: (1000,)} | {
    128: (2000,),
    256: (4000,),
}
ATTACKS = {"spear": spear, "spear-plus-plus": spear_plus_plus}
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


def row(
    attack: str,
    named: tuple[str, Dataset],
    size: int,
    units: int,
    dtype: torch.dtype,
    options: Namespace,
) -> None:
    """Print and record one row."""
    name, data = named
    worst, seconds, theory, ratios, blind, refused = [], [], [], [], [], []
    mean = data.test_inputs.double().mean(dim=0)
    for place in range(options.batches):
        view, auxiliary, x, counts = victim(data, size, units, place, dtype)
        theory.append(expected_draws(counts[:-1], int(counts[-1])))
        ratios.append(int(counts[-1]) / max(1.0, size * math.log(size)))
        blind.append(_decibels((x - mean).square().flatten(1).mean(dim=1)))
        begun = time.process_time()
        try:
            guess = ATTACKS[attack](
                view, auxiliary, generator(place, "spear"), seconds=options.seconds
            )
        except ValueError as reason:
            refused.append(str(reason))
        else:
            worst.append(_decibels(_nearest(guess, x).max()[None]))
        seconds.append(time.process_time() - begun)
    kind = "float64" if dtype == torch.float64 else "float32"
    label = f"{attack} {name} B={size} units={units} {kind}"
    decibels = fmean(worst) if worst else math.nan
    print(
        f"{label}: {len(worst)}/{options.batches} solved, {decibels:.0f} ± {_error(worst):.1f} dB "
        f"(blind {fmean(blind):.1f}), {fmean(seconds):.2f} ± {_error(seconds):.2f} CPU-s, any rows "
        f"{median(theory):.1e} draws, units {fmean(ratios):.1f} × B·ln B"
        + "".join(f"\n    {reason}" for reason in refused),
        flush=True,
    )
    record(
        "spear",
        {
            f"{label}: share solved": len(worst) / options.batches,
            f"{label}: worst PSNR, dB": decibels,
            f"{label}: CPU-s": fmean(seconds),
            f"{label}: expected draws of any rows": median(theory),
            f"{label}: units / (B ln B)": fmean(ratios),
        },
    )


def _nearest(guess: Tensor, x: Tensor) -> Tensor:
    """Return the mean square error of each picture's nearest answer."""
    errors = [(guess - picture).square().flatten(1).mean(dim=1).min() for picture in x]
    return torch.stack(errors)


def _error(values: list[float]) -> float:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan


def _decibels(error: Tensor) -> float:
    return float(-10 * error.clamp(min=1e-35).log10().mean())


def main() -> None:
    sets = {"CIFAR-10": cifar_part, "MNIST": mnist}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("--data", nargs="+", default=list(sets), choices=sets)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--types", nargs="+", default=["float64", "float32"])
    parser.add_argument("--seconds", type=float, default=0.0, help="CPU-s of a search, at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for kind in options.types:
        for name in options.data:
            data = sets[name]()
            for size in options.sizes:
                for units in UNITS.get(size, (1000,)):
                    for attack in options.attacks:
                        row(attack, (name, data), size, units, getattr(torch, kind), options)


if __name__ == "__main__":
    main()
