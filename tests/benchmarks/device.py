"""How many times faster clients train on an accelerator than on one core of the CPU.

    uv run python -m tests.benchmarks.device

Clients of 60 random images each: 1,000 with a CNN of MNIST's shape, 100 with a ResNet-18 of
CIFAR's; batches of 16, one epoch. On the CPU some of them are trained one by one, and wall time per
client is compared. Without an accelerator it says so.
"""

import time
from collections.abc import Callable

import torch

from clients.train import train
from fedsim import models
from fedsim.config import Model
from fedsim.core.devices import free_memory, named, offered
from fedsim.core.form import Form
from fedsim.core.rng import generator
from fedsim.core.sgd import shuffled
from fedsim.core.types import LocalTraining
from fedsim.models.together import train_together
from fedsim.run.device import fitting

EXAMPLES, LOCAL = 60, LocalTraining(0.05, 16)
ROWS = [("cnn", (1, 28, 28), 1000, 20), ("resnet18", (3, 32, 32), 100, 3)]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of a second call: the first one warms up."""
    work()
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def measure(name: str, shape: tuple[int, ...], clients: int, rehearsed: int, where: str) -> str:
    """Return a row of the table; `rehearsed` clients are trained on the CPU."""
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

    size = fitting(model, form, LOCAL.batch_size, free_memory(device) or 2**32)
    core = seconds(lambda: alone(rehearsed), named("cpu")) / rehearsed
    model.to(device)
    inline = seconds(lambda: alone(clients), device) / clients
    cell = f"{name} {clients} × {EXAMPLES}: one core {core:.4f} s, inline {core / inline:.1f} ×"
    if models.moved_state(model.cpu(), form):  # batch statistics
        return cell
    model.to(device)
    batched = seconds(together, device) / clients
    return f"{cell}, batched ({size} at a time) {core / batched:.1f} ×"


def main() -> None:
    """Print the table."""
    names = offered()
    if not names:
        print("no accelerator is at hand: nothing is measured")
        return
    torch.set_num_threads(1)
    for row in ROWS:
        print(f"{names[0]}, {measure(*row, names[0])}")


if __name__ == "__main__":
    main()
