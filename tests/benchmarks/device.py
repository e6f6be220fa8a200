"""How many times faster an accelerator is than one core of the CPU.

    uv run python -m tests.benchmarks.device [--device cuda] [--clients N] [--shadows N] …

Four rows: clients of 60 random images, 1,000 with a CNN of MNIST's shape and 100 with a ResNet-18
of CIFAR's, in batches of 16 for one epoch; a game of membership with 3,000 shadow clients of 8
records; gradient matching with 32 restarts on a batch of images of CIFAR's shape. On the CPU a part
of each is done, and wall time per client, trial or iteration is compared. Data are random: time
does not depend on them. `--device cpu` measures the CPU against itself, to try the benchmark.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from adversary import placement
from adversary.attacks import ATTACKS
from clients.train import train
from fedsim import config as configs
from fedsim import models
from fedsim.config import Cell, Model
from fedsim.core.devices import CPU, free_memory, named, offered, on
from fedsim.core.form import Form
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.sgd import shuffled
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.games import table
from fedsim.models.fitting import fitting
from fedsim.models.together import train_together

EXAMPLES, LOCAL = 60, LocalTraining(0.05, 16)
ROWS = [("cnn", (1, 28, 28), 20), ("resnet18", (3, 32, 32), 3)]  # clients trained on the CPU


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of a second call: the first one warms up."""
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def of_clients(name: str, shape: tuple[int, ...], clients: int, few: int, where: str) -> str:
    """Return the row of local training; `few` clients are trained on the CPU."""
    form, device = Form(shape, 10), named(where)
    model = models.build(Model(name=name), form, seed=0)
    sent = {key: value.clone() for key, value in model.state_dict().items()}
    inputs, labels = models.batch(form, EXAMPLES)

    def alone(count: int) -> None:
        for client in range(count):
            train(model, sent, inputs, labels, LOCAL, generator=generator(0, client))

    def together() -> None:
        for begin in range(0, clients, size):
            some = range(begin, min(clients, begin + size))
            steps = [shuffled(EXAMPLES, LOCAL, generator(0, client)) for client in some]
            train_together(model, [sent] * len(steps), inputs, labels, steps, LOCAL, mixes=False)

    few = min(few, clients)
    size = fitting(model, form, LOCAL.batch_size, free_memory(device) or 2**32)
    core = seconds(lambda: alone(few), CPU) / few
    model.to(device)
    inline = seconds(lambda: alone(clients), device) / clients
    cell = f"{name} {clients} × {EXAMPLES}: one core {core:.4f} s, inline {core / inline:.1f} ×"
    if models.moved_state(model.cpu(), form):  # batch statistics
        return cell
    model.to(device)
    batched = seconds(together, device) / clients
    return f"{cell}, batched ({size} at a time) {core / batched:.1f} ×"


def of_games(shadows: int, where: str) -> str:
    """Return the row of a game whose shadow clients train; a tenth of them on the CPU."""
    few, trials = max(80, shadows // 10), 100
    settings = [
        *('game.play=["membership"]', "game.batch_size=[8]", "game.rounds=[1]", "game.steps=5"),
        *("federation.strategy=fedavg", "local.batch_size=4", "model=cnn"),
        *('engine.name="batched"', "engine.batch=1024", f"game.trials={trials}"),
    ]

    def play(count: int, device: str) -> None:
        more = [f"engine.device={device}", f"game.shadows={count}"]
        with TemporaryDirectory() as folder:
            table.games([Cell("game", configs.read(None, [*settings, *more]))], Path(folder) / "it")

    core = seconds(lambda: play(few, "cpu"), CPU) / (few + trials)
    there = seconds(lambda: play(shadows, where), named(where)) / (shadows + trials)
    return f"game of {shadows} shadows: one core {core:.4f} s a trial, there {core / there:.1f} ×"


def of_matching(restarts: int, iterations: int, batch: int, where: str) -> str:
    """Return the row of gradient matching, of the CNN on images of CIFAR's shape."""
    form = Form((3, 32, 32), 10)
    model = models.build(Model(name="cnn"), form, seed=0)
    inputs, labels = models.batch(form, batch)
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    local = LocalTraining(0.1, batch, upload="gradient")
    state, _ = train(model, sent, inputs, labels, local, generator=generator(0))
    gradient = {name: state[name] for name, _ in model.named_parameters()}
    seen = Observation(sent, Update(1, "0", gradient, batch), local)
    knows = Auxiliary(model, 10, input_shape=form.shape)

    def match(count: int, device: torch.device) -> object:
        given = {"optimiser": "adam", "lr": 0.1, "tv": 1e-3, "start": "normal", "hypotheses": 1}
        given["rehearsals"] = 0
        infer = ATTACKS["inverting-gradients"].infer
        attack = replace(
            ATTACKS["inverting-gradients"],
            infer=lambda *shown: infer(*shown, restarts=count, iterations=iterations, **given),
        )
        view = View([seen], (), Memory())
        return placement.answer(attack, view, replace(knows, device=device), generator(0))

    few = max(1, restarts // 8)
    core = seconds(lambda: match(few, CPU), CPU) / (few * iterations)
    there = seconds(lambda: match(restarts, named(where)), named(where)) / (restarts * iterations)
    return (
        f"matching, {restarts} restarts × {batch} images: one core {1e3 * core:.2f} ms a restart "
        f"and iteration, there {core / there:.1f} ×"
    )


def main() -> None:
    """Print the table."""
    names = offered()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default=names[0] if names else None, choices=[*names, "cpu"])
    parser.add_argument("--clients", type=int, default=1000, help="of the CNN; a tenth of ResNet's")
    parser.add_argument("--shadows", type=int, default=3000)
    parser.add_argument("--restarts", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4, help="images that are reconstructed")
    given = parser.parse_args()
    if given.device is None:
        print("no accelerator is at hand: nothing is measured")
        return
    torch.set_num_threads(1)
    with on(named(given.device)):  # so that its start is in no row
        torch.zeros(1).sum()
    sizes = (given.clients, max(1, given.clients // 10))
    for (name, shape, few), clients in zip(ROWS, sizes, strict=True):
        print(f"{given.device}, {of_clients(name, shape, clients, few, given.device)}", flush=True)
    print(f"{given.device}, {of_games(given.shadows, given.device)}", flush=True)
    match = (given.restarts, given.iterations, given.batch)
    print(f"{given.device}, {of_matching(*match, given.device)}", flush=True)


if __name__ == "__main__":
    main()
