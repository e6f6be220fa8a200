"""scikit-learn, as Flower's quickstart has it: logistic regression, warm-started, by a solver."""

import warnings

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.linear_model import LogisticRegression

from tests.apps.digits import CLIENTS, every_class, partition

client_app = ClientApp()


def new_model():
    model = LogisticRegression(max_iter=1, warm_start=True, solver="saga", random_state=0)
    model.classes_ = np.arange(10)
    model.coef_, model.intercept_ = np.zeros((10, 64)), np.zeros(10)
    return model


@client_app.train()
def train(msg: Message, context: Context):
    model = new_model()
    model.coef_, model.intercept_ = msg.content["arrays"].to_numpy_ndarrays()
    x, y = partition(int(context.node_config["partition-id"]))
    every, labels = every_class()  # `fit` wants an example of each
    x, y = np.concatenate([every, x]), np.concatenate([labels, y])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x.reshape(len(x), -1), y)
    arrays = ArrayRecord([model.coef_, model.intercept_])
    metrics = MetricRecord({"num-examples": len(y), "accuracy": float(model.classes_[0])})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


def server_app(wrap, results):
    """Return the ServerApp; `wrap` puts a recorder around its strategy, or nothing."""
    app = ServerApp()

    @app.main()
    def main(grid, context):
        model = new_model()
        strategy = wrap(FedAvg(fraction_evaluate=0.0, min_available_nodes=CLIENTS))
        results["final"] = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord([model.coef_, model.intercept_]),
            num_rounds=2,
        ).arrays

    return app
