"""Flower's legacy API, as most tutorials have it: `server_fn`, a `NumPyClient`, `client_fn`."""

from collections import OrderedDict

import numpy as np
import torch
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import Context, ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from torch import nn
from torch.nn import functional

from strategies.legacy import LegacyRecording
from tests.apps.digits import CLIENTS, partition

LR, BATCH = 0.1, 10
RECORDER = LegacyRecording


class Net(nn.Module):
    """Two dense layers."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(64, 24)
        self.out = nn.Linear(24, 10)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x.flatten(1))))


def get_weights(net):
    return [value.cpu().numpy() for value in net.state_dict().values()]


def set_weights(net, parameters):
    pairs = zip(net.state_dict(), parameters, strict=True)
    net.load_state_dict(OrderedDict((name, torch.tensor(value)) for name, value in pairs))


class FlowerClient(NumPyClient):
    """Trains with plain SGD."""

    def __init__(self, number):
        self.net, (x, y) = Net(), partition(number)
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)

    def fit(self, parameters, config):
        set_weights(self.net, parameters)
        for batch in torch.arange(len(self.y)).split(BATCH):
            loss = functional.cross_entropy(self.net(self.x[batch]), self.y[batch])
            gradients = torch.autograd.grad(loss, list(self.net.parameters()))
            with torch.no_grad():
                for value, gradient in zip(self.net.parameters(), gradients, strict=True):
                    value -= LR * gradient
        return get_weights(self.net), len(self.y), {}

    def evaluate(self, parameters, config):
        set_weights(self.net, parameters)
        loss = functional.cross_entropy(self.net(self.x), self.y)
        return float(loss), len(self.y), {}


def client_fn(context: Context):
    return FlowerClient(int(context.node_config["partition-id"])).to_client()


class Kept(FedAvg):
    """Keeps the last model, as a user's own strategy does."""

    def __init__(self, **options):
        super().__init__(**options)
        self.final = None

    def aggregate_fit(self, server_round, results, failures):
        in_order = sorted(results, key=lambda result: result[0].cid)  # they come as they are done
        self.final = super().aggregate_fit(server_round, in_order, failures)[0]
        return self.final, {}


def server_app(wrap, results):
    """Return the ServerApp; `wrap` puts a recorder around its strategy, or nothing."""

    def server_fn(context: Context):
        torch.manual_seed(0)
        kept = Kept(
            initial_parameters=ndarrays_to_parameters(get_weights(Net())),
            fraction_evaluate=0.5,
            min_available_clients=CLIENTS,
            min_fit_clients=CLIENTS,
        )
        results["strategy"] = kept
        return ServerAppComponents(strategy=wrap(kept), config=ServerConfig(num_rounds=2))

    return ServerApp(server_fn=server_fn)


def final(results):
    """Return the last model's bytes."""
    return [np.frombuffer(tensor, np.uint8) for tensor in results["strategy"].final.tensors]


client_app = ClientApp(client_fn=client_fn)
