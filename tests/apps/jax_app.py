"""JAX and Flax, as Flower's quickstart has it: the leaves of a tree as a list of NumPy arrays."""

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np
import optax  # pyright: ignore[reportMissingImports]
import torch
from flax import linen as nn  # pyright: ignore[reportMissingImports]
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from torch.nn import functional

from fedsim.federation.mods import keep_truth
from tests.apps.digits import CLIENTS, partition

LR, BATCH = 0.1, 10
client_app = ClientApp()


class CNN(nn.Module):
    """A small CNN; images are (height, width, channels)."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(features=6, kernel_size=(3, 3))(x))
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(features=32)(x))
        return nn.Dense(features=10)(x)


class Twin(torch.nn.Module):
    """The same in torch: what a user writes to attack the whole model."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 6, 3, padding=1)
        self.dense = torch.nn.Linear(96, 32)
        self.out = torch.nn.Linear(32, 10)

    def forward(self, x):
        x = functional.avg_pool2d(functional.relu(self.conv(x)), 2)
        return self.out(functional.relu(self.dense(x.permute(0, 2, 3, 1).flatten(1))))


def initial():
    return CNN().init(jax.random.PRNGKey(0), jnp.ones([1, 8, 8, 1]))["params"]


def get_params(params):
    return [np.array(param) for param in jax.tree_util.tree_leaves(params)]


@jax.jit
def gradient(params, images, labels):
    def loss(params):
        logits = CNN().apply({"params": params}, images)
        return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, 10)).mean()

    return jax.grad(loss)(params)


@client_app.train()
def train(msg: Message, context: Context):
    structure = jax.tree_util.tree_structure(initial())
    arrays = msg.content["arrays"].to_numpy_ndarrays()
    params = jax.tree_util.tree_unflatten(structure, list(arrays))
    optimizer = optax.sgd(LR)
    state = optimizer.init(params)
    x, y = partition(int(context.node_config["partition-id"]))
    for start in range(0, len(y), BATCH):
        rows = slice(start, start + BATCH)
        updates, state = optimizer.update(gradient(params, x[rows, :, :, None], y[rows]), state)
        params = optax.apply_updates(params, updates)
    if folder := context.run_config.get("truth"):
        keep_truth(folder, msg, context, torch.from_numpy(y))
    metrics = MetricRecord({"num-examples": len(y)})
    content = RecordDict({"arrays": ArrayRecord(get_params(params)), "metrics": metrics})
    return Message(content, reply_to=msg)


def server_app(wrap, results):
    """Return the ServerApp; `wrap` puts a recorder around its strategy, or nothing."""
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(FedAvg(fraction_evaluate=0.0, min_available_nodes=CLIENTS))
        results["final"] = strategy.start(
            grid=grid, initial_arrays=ArrayRecord(get_params(initial())), num_rounds=2
        ).arrays

    return app
