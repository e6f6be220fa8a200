"""FedSGD: clients upload the gradient itself, and the server takes the step."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg


class FedSGD(FedAvg):
    """w ← w − lr · Σ_k (n_k / n) g_k, with one gradient g_k per client and round.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017, section 2.

    Args:
        lr: The server's learning rate.
        buffers: Names that are no gradients (BatchNorm statistics): these are averaged.
        **sampling: As for FedAvg.
    """

    def __init__(self, *, lr: float, buffers: Iterable[str] = (), **sampling: Any) -> None:
        super().__init__(**sampling)
        self.lr = lr
        self.buffers = frozenset(buffers)
        self.current_arrays: ArrayRecord | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the weights that the gradients will be taken at."""
        self.current_arrays = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the gradients by number of examples and take one step."""
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None or self.current_arrays is None:
            return None, metrics
        stepped = {
            name: array
            if name in self.buffers
            else Array(np.asarray(self.current_arrays[name].numpy() - self.lr * array.numpy()))
            for name, array in mean.items()
        }
        return ArrayRecord(stepped), metrics
