"""XGBoost, as Flower's quickstart has it: trees as bytes, in a model that grows every round."""

import numpy as np
import xgboost as xgb  # pyright: ignore[reportMissingImports]
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedXgbBagging

from tests.apps.digits import CLIENTS, partition

PARAMS = {"objective": "binary:logistic", "max_depth": 2, "nthread": 1, "seed": 0}
client_app = ClientApp()


@client_app.train()
def train(msg: Message, context: Context):
    x, y = partition(int(context.node_config["partition-id"]))
    data = xgb.DMatrix(x.reshape(len(x), -1), label=y % 2)
    if msg.content["config"]["server-round"] == 1:
        booster = xgb.train(PARAMS, data, num_boost_round=1)
    else:
        booster = xgb.Booster(params=PARAMS)
        booster.load_model(bytearray(msg.content["arrays"]["0"].numpy().tobytes()))
        booster.update(data, booster.num_boosted_rounds())
        rounds = booster.num_boosted_rounds()
        booster = booster[rounds - 1 : rounds]
    model = np.frombuffer(booster.save_raw("json"), dtype=np.uint8)
    metrics = MetricRecord({"num-examples": len(y)})
    return Message(RecordDict({"arrays": ArrayRecord([model]), "metrics": metrics}), reply_to=msg)


def server_app(wrap, results):
    """Return the ServerApp; `wrap` puts a recorder around its strategy, or nothing."""
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(FedXgbBagging(fraction_evaluate=0.0, min_available_nodes=CLIENTS))
        results["final"] = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord([np.frombuffer(b"", dtype=np.uint8)]),
            num_rounds=3,
        ).arrays

    return app
