import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord

from fedsim.core.wire import from_record, to_record
from strategies import FedSGD
from tests.builders import grid_of, reply_with


def test_the_server_takes_the_mean_gradients_step_and_averages_buffers():
    sent = {"w": torch.tensor([1.0, 2.0]), "running": torch.tensor([0.0])}
    gradients = {0: [1.0, 0.0], 1: [0.0, 4.0]}

    def answer(client):
        arrays = {
            "w": np.array(gradients[client], np.float32),
            "running": np.array([8.0 * client], np.float32),
        }
        return reply_with(arrays, 1 + 2 * client)

    strategy = FedSGD(lr=0.5, buffers=["running"])
    grid = grid_of(2, answer)
    messages = strategy.configure_train(1, to_record(sent), ConfigRecord(), grid)
    arrays, _ = strategy.aggregate_train(1, grid.send_and_receive(messages))
    stepped = from_record(arrays)
    assert stepped["w"].tolist() == pytest.approx([1 - 0.5 * 0.25, 2 - 0.5 * 3])
    assert stepped["running"].tolist() == pytest.approx([6.0])


def test_no_upload_is_no_step():
    strategy = FedSGD(lr=0.5)
    assert strategy.aggregate_train(1, []) == (None, None)
