"""Small things that tests are built from; plain functions."""

import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from torch import Generator, Tensor, nn

from adversary.attack import Attack
from adversary.steps import num_labels
from adversary.workspace import Workspace, workspace
from defenses import Defense
from fedsim.config import Config, parse
from fedsim.conformance.views import (
    bilinear,  # noqa: F401  # tests take these four from here
    observe,  # noqa: F401
    plain_gradient,  # noqa: F401
    same_params,
)
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Params, Update, View
from fedsim.core.wire import ARRAYS, METRICS, NUM_EXAMPLES
from fedsim.data import Dataset
from fedsim.federation.grid import SimulationGrid
from fedsim.run.run_folder import RunFolder


def small_config(**tables) -> Config:
    """Return a run of a second: 4 clients, 3 rounds, an MLP on few digits."""
    sections = {
        "federation": {"rounds": 3, "clients": 4},
        "data": {"limit": 160, "alpha": 0.5},
        "model": {"name": "mlp", "hidden": 16},
        "local": {"epochs": 1, "lr": 0.2, "batch_size": 8},
        "attack": ["llg", "idlg"],
    }
    for name, table in tables.items():
        both = (
            isinstance(table, dict)
            and name in sections
            and (name != "model" or "name" not in table)
        )
        sections[name] = {**sections[name], **table} if both else table
    return parse(sections)


def toy_dataset(root: Path, *, size: int = 60) -> Dataset:
    """Three classes of Gaussian blobs in four dimensions; the user column has six users."""
    stream = Generator().manual_seed(0)
    labels = torch.arange(size) % 3
    inputs = torch.randn(size, 4, generator=stream) + 2 * labels.unsqueeze(1)
    return Dataset(
        inputs=inputs,
        labels=labels,
        test_inputs=inputs,
        test_labels=labels,
        num_classes=3,
        columns={"user": np.arange(size) % 6},
    )


def token_dataset(root: Path, *, size: int = 60) -> Dataset:
    """Three classes of sequences of six token ids, whole numbers below 32."""
    stream = Generator().manual_seed(0)
    labels = torch.arange(size) % 3
    inputs = torch.randint(10, (size, 6), generator=stream) + 10 * labels.unsqueeze(1)
    return Dataset(
        inputs=inputs, labels=labels, test_inputs=inputs, test_labels=labels, num_classes=3
    )


def sticky(*, pull: float = 0.5) -> Defense:
    """A defense with memory: uploads a running mean of the client's updates."""

    def init(params: Params) -> dict[str, Tensor]:
        return {name: torch.zeros_like(value) for name, value in params.items()}

    def apply(
        params: Params, state: dict[str, Tensor], generator: Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        mean = {name: pull * state[name] + (1 - pull) * value for name, value in params.items()}
        return mean, mean

    return Defense(name="sticky", apply=apply, init=init)


def work_at(auxiliary: Auxiliary, sent: Params, local: LocalTraining | None = None) -> Workspace:
    """Return where an adversary works on these weights, with a memory of its own."""
    observation = Observation(sent, Update(1, "0", {}, None), local or LocalTraining(0.1, 1))
    return workspace(View([observation]), auxiliary)


def auxiliary_of(model: nn.Module, num_classes: int) -> Auxiliary:
    """Return an adversary that knows the architecture alone; it takes vectors."""
    first = next(module for module in model.modules() if isinstance(module, nn.Linear))
    return Auxiliary(model, num_classes, input_shape=(first.in_features,))


def random_guess(view: View, auxiliary: Auxiliary, generator: Generator) -> Tensor:
    """Guess every label at random."""
    draws = torch.randint(auxiliary.num_classes, (num_labels(view.latest),), generator=generator)
    return torch.bincount(draws, minlength=auxiliary.num_classes)


random_attack = Attack(
    name="random", family="label", infer=random_guess, summary="every label at random"
)

Reply = Callable[[Message, int], RecordDict | None]


def reply_with(arrays: dict[str, np.ndarray], num_examples: float) -> RecordDict:
    """Return what a client answers to a train message."""
    record = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    return RecordDict({ARRAYS: record, METRICS: MetricRecord({NUM_EXAMPLES: num_examples})})


def answering(answer: Callable[[int], RecordDict | Exception | None]):
    """Return an engine whose client k answers `answer(k)`: a reply, an error, or nothing."""
    from flwr.app import Error

    def execute(jobs: Iterable[tuple[Message, Context]], timeout: float | None):
        for message, context in jobs:
            content = answer(int(context.node_config["partition-id"]))
            if isinstance(content, Exception):
                yield Message(Error(code=0, reason=str(content)), reply_to=message), context
            elif content is not None:
                yield Message(content, reply_to=message), context

    return execute


def grid_of(
    num_clients: int, answer: Callable[[int], RecordDict | Exception | None]
) -> SimulationGrid:
    """Return a grid whose clients answer as told."""
    return SimulationGrid(num_clients, answering(answer), Path("unused"))


def outcome(path: Path) -> tuple[dict[str, Tensor], list[dict]]:
    """Return what a run ends with: the model, and the ledger but for its seconds."""
    folder = RunFolder(path)
    return folder.final_params(), rows_without_seconds(folder.ledger())


def assert_same_outcome(one: Path, other: Path) -> None:
    """Check that two runs end with the same bits and the same rows."""
    (params, rows), (others, other_rows) = outcome(one), outcome(other)
    assert same_params(params, others)
    assert rows == other_rows


def rows_without_seconds(table) -> list[dict]:
    """Return a ledger's rows without the one column that time decides."""
    return table.drop_columns(["seconds"]).to_pylist()


def norms(updates: Sequence[Params]) -> list[float]:
    """Return the Euclidean norm of each update."""
    return [float(torch.cat([v.flatten() for v in update.values()]).norm()) for update in updates]


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback interface that nobody listens on."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:  # all bound at the same time: no port comes twice
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def flower_environment(home: Path) -> dict[str, str]:
    """Return an environment in which Flower keeps to itself: own home, own SuperLink."""
    http, control = free_ports(2)
    programs = Path(sys.executable).parent
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(http),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def prune(update: Params, rate: float) -> dict[str, Tensor]:
    """Zero the smallest entries of each tensor, so that a share `1 − rate` of it stays."""
    kept = {}
    for name, value in update.items():
        size = value.abs().flatten()
        stay = max(1, round((1 - rate) * len(size)))
        edge = size.sort(descending=True).values[stay - 1]
        kept[name] = torch.where(value.abs() >= edge, value, 0.0)
    return kept


def deployment(tmp_path: Path, nodes: int = 2, **options):
    """Write a deployment with free ports; return it and its folder."""
    from fedsim.deploy.create import create

    ports = free_ports(nodes + 1)
    options = {"port": ports[0], "node_ports": ports[1:], **options}
    return create(tmp_path / "deployed", nodes=nodes, **options), tmp_path / "deployed"
