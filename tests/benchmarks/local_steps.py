"""Several images a client after several local steps: what comes back, by epochs and learning rate.

    uv run python -m tests.benchmarks.local_steps NET IMAGES BATCH [--epochs E …] [--rates LR …]

Clients have IMAGES and train on batches of BATCH, in a new order in every epoch; they upload
float32 weights. NET is `conv` or `mlp`, with sigmoids, of MNIST's digits in 7×7 pixels (means of
4×4), or `lenet` of CIFAR-10. Rows: `joint` with its own settings, and `inverting-gradients`
(one start, its first settings, labels of the label attack). PSNR is in dB on pixels in [0, 1] with
answers and images paired to the best, ± is the standard error over clients, blind the mean
auxiliary picture. Of `joint` also the share of answers that it says explain the upload, how many of
these are not back, and the error over the uncertainty (root mean squares) of those that are. Memory
is the peak of the process so far.
"""

import argparse
import copy
import math
import resource
import time
from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor, nn

from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.attacks.joint import joint
from clients.train import train
from fedsim.core.errors import remarks_of_attacks
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate, LocalTraining, View
from fedsim.models.lenet import lenet
from tests.benchmarks.record import record
from tests.builders import observe
from tests.real_data import cifar_part, mnist

CLASSES, DIGITS, SOLVED = 10, 400, 60.0  # images, the later half of them auxiliary; dB


def digits() -> tuple[Tensor, Tensor]:
    """Return images and labels."""
    data = mnist()
    return nn.functional.avg_pool2d(data.inputs[:DIGITS].float(), 4), data.labels[:DIGITS]


def pictures(name: str) -> tuple[Tensor, Tensor]:
    """Return images and labels for a net."""
    if name != "lenet":
        return digits()
    data = cifar_part()
    return data.inputs[:DIGITS].float(), data.labels[:DIGITS]


def net(name: str = "conv") -> nn.Module:
    """Return two layers with sigmoids and weights in [−0.5, 0.5], or LeNet."""
    with global_stream(0, "pairs"):
        if name == "lenet":
            return lenet((3, 32, 32), CLASSES)
        if name == "mlp":
            layers = [nn.Flatten(), nn.Linear(49, 100), nn.Sigmoid(), nn.Linear(100, CLASSES)]
        else:
            layers = [
                *(nn.Conv2d(1, 6, 3, padding=1), nn.Sigmoid(), nn.Conv2d(6, 6, 3, padding=1)),
                *(nn.Sigmoid(), nn.Flatten(), nn.Linear(294, CLASSES)),
            ]
        model = nn.Sequential(*layers)
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def victim(
    name: str, place: int, count: int, local: LocalTraining
) -> tuple[View, Auxiliary, Tensor]:
    """Return what the server sees of a client, the adversary, and the client's images."""
    inputs, labels = pictures(name)
    x, y = (of[count * place : count * (place + 1)] for of in (inputs, labels))
    model, half = net(name), DIGITS // 2
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    state, _ = train(copy.deepcopy(model), sent, x, y, local, generator=generator(0, place))
    view = observe(subtract(state, sent), count, sent=model, local=local)
    return view, Auxiliary(model, CLASSES, inputs=inputs[half:], labels=labels[half:]), x


def paired(guess: Tensor | Estimate, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return errors in the order of answers that fits best, and their uncertainty."""
    values = guess.values if isinstance(guess, Estimate) else guess
    orders = [list(order) for order in permutations(range(len(x)))]
    errors = [values.clamp(0, 1)[order] - x for order in orders]
    best = min(range(len(orders)), key=lambda place: float(errors[place].square().mean()))
    unsure = guess.uncertainty[orders[best]] if isinstance(guess, Estimate) else None
    return errors[best], unsure


def psnr(guess: Tensor | Estimate, x: Tensor) -> float:
    """Return the PSNR of answers in the order that fits best."""
    return float(-10 * paired(guess, x)[0].square().mean().log10())


def shown(values: list[float]) -> str:
    """Return the mean and its standard error, and how many came back."""
    rows = torch.tensor(values)
    error = float(rows.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    solved = sum(value > SOLVED for value in values)
    return f"{float(rows.mean()):.1f} ± {error:.1f} dB, {solved} of {len(values)} above {SOLVED:g}"


def judged(answers: list[tuple[Tensor | Estimate, Tensor, str]]) -> str:
    """Return what `joint` says of its answers, and how far it is right."""
    claimed = [(answer, x) for answer, x, remark in answers if "not verified" not in remark]
    wrong = sum(psnr(*it) <= SOLVED for it in claimed)
    ratios = []
    for answer, x in claimed:
        error, unsure = paired(answer, x)
        if unsure is not None and psnr(answer, x) > SOLVED:
            ratios.append(float(error.square().mean().sqrt() / unsure.square().mean().sqrt()))
    spread = torch.tensor(ratios or [math.nan]).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return (
        f"; {len(claimed)} explain the upload, {wrong} of these not back; error over uncertainty "
        f"{spread[1]:.2f} ({spread[0]:.2f} to {spread[2]:.2f})"
    )


def main() -> None:
    """Print a line per cell and attack, and append its figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", choices=("conv", "mlp", "lenet"))
    parser.add_argument("images", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("--epochs", type=int, nargs="*", default=(1, 2, 5, 10))
    parser.add_argument("--rates", type=float, nargs="*", default=(1.0, 0.1, 0.01))
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--matched", type=int, default=20, help="clients of matching, at most")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--rehearsals", type=int, default=0, help="clients to learn shrinking by")
    args = parser.parse_args()
    torch.set_num_threads(1)
    attacks: dict[str, Callable[[View, Auxiliary], Tensor | Estimate]] = {
        "joint": lambda view, known: joint(view, known, generator(0)),
        "matching": lambda view, known: inverting_gradients(
            view, known, generator(0), restarts=1, iterations=args.iterations,
            optimiser="adam", lr=0.1, tv=1e-3, start="grey", rehearsals=args.rehearsals,
        ),
    }  # fmt: skip
    for epochs in args.epochs:
        for lr in args.rates:
            local = LocalTraining(lr=lr, batch_size=args.batch, epochs=epochs)
            cases = [victim(args.net, it, args.images, local) for it in range(args.clients)]
            means = [(known.inputs.mean(dim=0).expand_as(x), x) for _, known, x in cases]  # pyright: ignore
            title = f"{args.net}, {args.images} images, batch {args.batch}, E={epochs} lr={lr:g}"
            blind = sum(psnr(mean, x) for mean, x in means) / len(means)
            for name, attack in attacks.items():
                begun, answers = time.process_time(), list[tuple[Tensor | Estimate, Tensor, str]]()
                used = cases[: args.matched] if name == "matching" else cases
                for view, known, x in used:
                    with remarks_of_attacks() as remarks:
                        answer = attack(view, known)
                    answers.append((answer, x, "; ".join(remarks)))
                seconds = (time.process_time() - begun) / len(used)
                values = [psnr(answer, x) for answer, x, _ in answers]
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                more = judged(answers) if name == "joint" else ""
                print(
                    f"{title}: {name} {shown(values)}, blind {blind:.1f}, {seconds:.1f} CPU-s a "
                    f"client, {peak:.0f} MB{more}",
                    flush=True,
                )
                record("local_steps", {f"{title}, {name}: PSNR, dB": sum(values) / len(values)})


if __name__ == "__main__":
    main()
