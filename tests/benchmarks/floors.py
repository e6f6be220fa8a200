"""What the parts of a round cost that no engine can leave out, round by round beside each other.

    uv run python -m tests.benchmarks.floors --data ../shared/data/mnist cnn 200 4 8

Every round of a run is followed by one round of the loop by hand (`bare`), of training together
alone, with a mean of the uploads (`together`), and of Flower's messages and average alone
(`messages`), in one process: so load on the machine slows all of them alike. CPU-seconds of a
round, the median over the rounds after the first, and the ratio to the loop by hand.
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fedsim.config import Config

TOGETHER = 64  # clients, as many as the engine's default


def bare(config: Config) -> Iterator[int]:
    """The same local SGD and averaging, as one would write it without any framework."""
    import torch

    from fedsim import data, models
    from fedsim.core.rng import generator

    torch.set_num_threads(1)
    federated = data.federate(config)
    dataset = federated.dataset
    model = models.build(config.model, dataset.form, seed=config.seed)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = list(model.parameters())
    total = sum(len(rows) for rows in federated.clients)
    yield 0
    for round_ in range(1, config.federation.rounds + 1):
        mean = {name: torch.zeros_like(value) for name, value in state.items()}
        for client, rows in enumerate(federated.clients):
            model.load_state_dict(state)
            model.train()
            stream = generator(config.seed, "train", client, round_)
            inputs, labels = dataset.inputs[rows], dataset.labels[rows]
            for batch in torch.randperm(len(rows), generator=stream).split(config.local.batch_size):
                loss = torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
                gradients = torch.autograd.grad(loss, parameters)
                with torch.no_grad():
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        parameter -= config.local.lr * gradient
            for name, value in model.state_dict().items():
                mean[name] += value * (len(rows) / total)
        state = mean
        yield round_


def messages(config: Config) -> Iterator[int]:
    """Flower's messages and average, and nothing else: each client uploads what it was sent."""
    from flwr.app import ConfigRecord, Message
    from flwr.serverapp.strategy import FedAvg

    from fedsim import data, models
    from fedsim.core.wire import (
        ARRAYS,
        METRICS,
        NUM_EXAMPLES,
        content_of,
        held_record,
        metrics_of,
        to_record,
    )
    from fedsim.federation.grid import SimulationGrid
    from fedsim.federation.inline import inline

    logging.getLogger("flwr").setLevel(logging.ERROR)
    clients = config.federation.clients
    model = models.build(config.model, data.federate(config).dataset.form, seed=config.seed)
    state = dict(model.state_dict())
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=1)
    grid = SimulationGrid(clients, inline, Path("unused"))
    yield 0
    for round_ in range(1, config.federation.rounds + 1):
        messages = strategy.configure_train(round_, to_record(state), ConfigRecord(), grid)
        uploads = (held_record(state) for _ in range(clients))
        weight = {METRICS: metrics_of({NUM_EXAMPLES: 1})}
        contents = (content_of({ARRAYS: upload, **weight}) for upload in uploads)
        replies = [Message(it, reply_to=to) for it, to in zip(contents, messages, strict=True)]
        strategy.aggregate_train(round_, replies)
        yield round_


def together(config: Config) -> Iterator[int]:
    """Train clients together and take the mean of their weights, and nothing else."""
    import torch

    from fedsim import data, models
    from fedsim.core.rng import generator
    from fedsim.core.sgd import shuffled
    from fedsim.models.together import train_together

    torch.set_num_threads(1)
    federated = data.federate(config)
    dataset, local = federated.dataset, config.local_training()
    model = models.build(config.model, dataset.form, seed=config.seed)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    total = sum(len(rows) for rows in federated.clients)
    shares = torch.tensor([len(rows) / total for rows in federated.clients])
    yield 0
    for round_ in range(1, config.federation.rounds + 1):
        mean = {name: torch.zeros_like(value) for name, value in state.items()}
        for first in range(0, len(federated.clients), TOGETHER):
            some = federated.clients[first : first + TOGETHER]
            orders = [generator(config.seed, "train", first + k, round_) for k in range(len(some))]
            steps = [
                [rows[batch] for batch in shuffled(len(rows), local, order)]
                for rows, order in zip(some, orders, strict=True)
            ]
            sent = [state] * len(some)
            uploads = train_together(
                model, sent, dataset.inputs, dataset.y, steps, local, mixes=False
            )
            for name, value in mean.items():
                rows = torch.stack([upload[name] for upload in uploads]).flatten(1)
                value += (shares[first : first + TOGETHER] @ rows).view(value.shape)
        state = mean
        yield round_


ALONE = {"bare": bare, "together": together, "messages": messages}


def measured(config: Config, parts: list[str]) -> dict[str, float]:
    """Return the CPU-seconds of a round of a run, and of each of its parts alone."""
    from fedsim import api
    from fedsim.report import run as report

    report.write_report = lambda *_, **__: None  # it is no part of a round
    alone = {part: ALONE[part](config) for part in parts}
    spent: dict[str, list[float]] = {config.engine.name: [], **{part: [] for part in parts}}
    for rounds in alone.values():
        next(rounds)
    ended = time.process_time()

    def on_round(_: object) -> None:
        nonlocal ended
        spent[config.engine.name].append(time.process_time() - ended)
        for part, rounds in alone.items():
            begun = time.process_time()
            next(rounds, None)
            spent[part].append(time.process_time() - begun)
        ended = time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        api.run(config, Path(folder) / "run", on_round=on_round)
    return {part: statistics.median(each[2:-1]) for part, each in spent.items()}


def main() -> None:
    """Print a row for each part."""
    from fedsim.config import read
    from tests.benchmarks.engines import settings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", default="batched")
    parser.add_argument("--parts", default=",".join(ALONE))
    parser.add_argument("size", nargs=4, metavar=("MODEL", "CLIENTS", "IMAGES", "ROUNDS"))
    options = parser.parse_args()
    model, *numbers = options.size
    asked = [*settings(options.data, model, *map(int, numbers)), f"engine.name={options.engine}"]
    spent = measured(read(None, asked), options.parts.split(","))
    print(f"{' × '.join(options.size[:3])}, {os.getloadavg()[0]:.0f} processes that want to run")
    for part, seconds in spent.items():
        print(f"{part}: {seconds:.4f} s ({seconds / spent['bare']:.2f})")


if __name__ == "__main__":
    main()
