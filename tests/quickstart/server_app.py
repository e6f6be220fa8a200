"""The ServerApp of Flower's quickstart, with one line of fedsim's: the recorder."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp import strategy as flower

from strategies import Recording
from tests.quickstart.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and save the model."""
    num_rounds = context.run_config["num-server-rounds"]
    lr = context.run_config["learning-rate"]
    arrays = ArrayRecord(Net().state_dict())
    strategy = _strategy(context.run_config["strategy"])
    if context.run_config["tape"]:
        strategy = Recording(strategy, tape=context.run_config["tape"])
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        train_config=ConfigRecord({"lr": lr}),
        num_rounds=num_rounds,
    )
    torch.save(result.arrays.to_torch_state_dict(), context.run_config["final-model"])


def _strategy(name):
    average = flower.FedAvg(fraction_evaluate=0.5)
    return {
        "fedavg": lambda: average,
        "fedadam": lambda: flower.FedAdam(eta=0.01),
        "krum": lambda: flower.Krum(num_malicious_nodes=1),
        "dp-server-fixed": lambda: flower.DifferentialPrivacyServerSideFixedClipping(
            average, noise_multiplier=0.01, clipping_norm=0.05, num_sampled_clients=5
        ),
        "dp-server-adaptive": lambda: flower.DifferentialPrivacyServerSideAdaptiveClipping(
            average, noise_multiplier=0.01, num_sampled_clients=5
        ),
        "dp-client-fixed": lambda: flower.DifferentialPrivacyClientSideFixedClipping(
            average, noise_multiplier=0.01, clipping_norm=0.05, num_sampled_clients=5
        ),
    }[name]()
