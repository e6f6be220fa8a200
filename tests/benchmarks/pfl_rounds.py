"""The rounds of `engines` in pfl's simulated backend, which records and attacks nothing.

pfl stands in an environment of its own; this file imports nothing of fedsim and is run by path:

    uv venv FOLDER && uv pip install --python FOLDER/bin/python pfl==0.6.0 torch torchvision
    FOLDER/bin/python tests/benchmarks/pfl_rounds.py MNIST MODEL CLIENTS IMAGES ROUNDS

It prints CPU-seconds and wall time of a round as JSON: the medians of those after the first.
"""

# pyright: reportMissingImports=false

import gzip
import itertools
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import nn


def build(model: str) -> nn.Module:
    """Return fedsim's `cnn` or `resnet18` for MNIST, with the loss and metrics that pfl calls."""
    if model == "cnn":
        network: nn.Module = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * 7 * 7, 24), nn.ReLU(), nn.Linear(24, 10)),
        )
    else:
        from torchvision.models import resnet18

        network = resnet18(num_classes=10, norm_layer=lambda width: nn.GroupNorm(32, width))
        network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    network.loss = lambda x, y, eval=False: nn.functional.cross_entropy(network(x), y)
    network.metrics = lambda x, y: {}
    return network


def mnist(folder: Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return so many of MNIST's training images, and their labels."""
    raw = folder / "MNIST" / "raw"
    images, labels = (
        np.frombuffer(gzip.decompress((raw / f"train-{name}-ubyte.gz").read_bytes()), np.uint8)
        for name in ("images-idx3", "labels-idx1")
    )
    inputs = torch.from_numpy(images[16:].reshape(-1, 1, 28, 28)[:count].astype(np.float32) / 255)
    return inputs, torch.from_numpy(labels[8:][:count].astype(np.int64))


class Clock(TrainingProcessCallback):
    """Notes CPU and wall time at the end of every round."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def after_central_iteration(self, *_: object, **__: object) -> tuple[bool, Metrics]:
        """Go on."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.marks.append((used.ru_utime + used.ru_stime, time.perf_counter()))
        return False, Metrics()


def main() -> None:
    """Train, and print what a round took."""
    folder, model, *sizes = sys.argv[1:]
    clients, images, rounds = map(int, sizes)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs, labels = mnist(Path(folder), clients * images)
    users = [
        (inputs[k * images : (k + 1) * images], labels[k * images : (k + 1) * images])
        for k in range(clients)
    ]
    network = build(model)
    clock = Clock()
    data = FederatedDataset(
        lambda user: PyTorchTensorDataset(users[user]),
        get_user_sampler("minimize_reuse", range(clients)),
    )
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=clients,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=data, val_data=None),
        model=PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), 1.0)),
        model_train_params=NNTrainHyperParams(
            local_batch_size=16, local_num_epochs=1, local_learning_rate=0.05
        ),
        callbacks=[clock],
        send_metrics_to_platform=False,
    )
    spent = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(clock.marks)]
    cpu, wall = (statistics.median(each) for each in zip(*spent, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": cpu, "wall": wall, "peak_mb": peak}))


if __name__ == "__main__":
    main()
