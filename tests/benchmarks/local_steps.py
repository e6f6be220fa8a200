"""Several images a client after several local steps: what comes back, by epochs and learning rate.

    uv run python -m tests.benchmarks.local_steps IMAGES BATCH [--epochs E …] [--rates LR …]

Clients have IMAGES of MNIST's digits in 7×7 pixels (means of 4×4) and train a small net with
sigmoids on batches of BATCH, in a new order in every epoch; they upload float32 weights. Rows:
`joint` with up to ten hypotheses of labels, and gradient matching (`idlg-inversion`, labels of the
label attack, one start). PSNR is in dB on pixels in [0, 1] with answers and images paired to the
best, ± is the standard error over clients, blind the mean auxiliary picture. Memory is the peak of
the process so far.
"""

import argparse
import copy
import resource
import time
import warnings
from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor, nn

from adversary.attacks.dlg import dlg
from adversary.attacks.joint import joint
from clients.train import train
from fedsim.core.errors import Remark
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate, LocalTraining, View
from tests.benchmarks.record import record
from tests.builders import observe
from tests.real_data import mnist

CLASSES, DIGITS, SOLVED = 10, 400, 60.0  # images, the later half of them auxiliary; dB


def digits() -> tuple[Tensor, Tensor]:
    """Return images and labels."""
    data = mnist()
    return nn.functional.avg_pool2d(data.inputs[:DIGITS].float(), 4), data.labels[:DIGITS]


def net() -> nn.Module:
    """Two convolutions with sigmoids and weights in [−0.5, 0.5]."""
    with global_stream(0, "pairs"):
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.Sigmoid(), nn.Conv2d(6, 6, 3, padding=1),
            nn.Sigmoid(), nn.Flatten(), nn.Linear(294, CLASSES),
        )  # fmt: skip
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def victim(place: int, count: int, local: LocalTraining) -> tuple[View, Auxiliary, Tensor]:
    """Return what the server sees of a client, the adversary, and the client's images."""
    inputs, labels = digits()
    x, y = (of[count * place : count * (place + 1)] for of in (inputs, labels))
    model, half = net(), DIGITS // 2
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    state, _ = train(copy.deepcopy(model), sent, x, y, local, generator=generator(0, place))
    view = observe(subtract(state, sent), count, sent=model, local=local)
    return view, Auxiliary(model, CLASSES, inputs=inputs[half:], labels=labels[half:]), x


def psnr(guess: Tensor | Estimate, x: Tensor) -> float:
    """Return the PSNR of answers in the order that fits best."""
    guess = guess.values if isinstance(guess, Estimate) else guess
    pairs = (guess.clamp(0, 1)[list(order)] - x for order in permutations(range(len(x))))
    return max(float(-10 * pair.square().mean().log10()) for pair in pairs)


def shown(values: list[float]) -> str:
    """Return the mean and its standard error, and how many came back."""
    rows = torch.tensor(values)
    error = float(rows.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    solved = sum(value > SOLVED for value in values)
    return f"{float(rows.mean()):.1f} ± {error:.1f} dB, {solved} of {len(values)} above {SOLVED:g}"


def main() -> None:
    """Print a line per cell and attack, and append its figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("--epochs", type=int, nargs="*", default=(1, 2, 5, 10))
    parser.add_argument("--rates", type=float, nargs="*", default=(1.0, 0.1, 0.01))
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", Remark)
    stream = lambda: generator(0)
    attacks: dict[str, Callable[[View, Auxiliary], Tensor | Estimate]] = {
        "joint": lambda view, known: joint(view, known, stream(), steps=12),
        "matching": lambda view, known: dlg(
            view, known, stream(), labels="recovered", restarts=1, iterations=args.iterations
        ),
    }
    for epochs in args.epochs:
        for lr in args.rates:
            local = LocalTraining(lr=lr, batch_size=args.batch, epochs=epochs)
            cases = [victim(place, args.images, local) for place in range(args.clients)]
            means = [(known.inputs.mean(dim=0).expand_as(x), x) for _, known, x in cases]  # pyright: ignore
            title = f"{args.images} images, batch {args.batch}, E={epochs} lr={lr:g}"
            blind = sum(psnr(mean, x) for mean, x in means) / len(means)
            for name, attack in attacks.items():
                begun = time.process_time()
                values = [psnr(attack(view, known), x) for view, known, x in cases]
                seconds = (time.process_time() - begun) / len(cases)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(
                    f"{title}: {name} {shown(values)}, blind {blind:.1f}, {seconds:.1f} CPU-s a "
                    f"client, {peak:.0f} MB",
                    flush=True,
                )
                record("local_steps", {f"{title}, {name}: PSNR, dB": sum(values) / len(values)})


if __name__ == "__main__":
    main()
