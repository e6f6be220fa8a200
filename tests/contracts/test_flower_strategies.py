"""Every strategy that Flower has: as alone behind `Recording`, and behind `Fence` where it fits."""

import inspect
import json
import random
from gc import collect

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from fedsim.core.rng import generator
from fedsim.core.wire import ARRAYS, METRICS, NUM_EXAMPLES, to_record
from strategies import Fence, Recording
from strategies.tape import recorded_clients, recorded_rounds
from tests.builders import grid_of

pytestmark = pytest.mark.untyped

NAMES = {"w": (3, 2), "b": (3,)}
NORM_BIT = "norm_bit"
PRIVATE = {"noise_multiplier": 0.1, "num_sampled_clients": 7}
OPTIONS = {
    "DifferentialPrivacyClientSideAdaptiveClipping": PRIVATE,
    "DifferentialPrivacyClientSideFixedClipping": PRIVATE | {"clipping_norm": 1.0},
    "DifferentialPrivacyServerSideAdaptiveClipping": PRIVATE,
    "DifferentialPrivacyServerSideFixedClipping": PRIVATE | {"clipping_norm": 1.0},
    "QFedAvg": {"client_learning_rate": 0.1},
    "FedAvgM": {"server_momentum": 0.9},
    "FedProx": {"proximal_mu": 0.1},
    "Bulyan": {"num_malicious_nodes": 1},
}
STRATEGIES = sorted(
    name
    for name, value in vars(flower).items()
    if inspect.isclass(value)
    and issubclass(value, flower.Strategy)
    and value is not flower.Strategy
)
METRICS_OF = {
    "DifferentialPrivacyClientSideAdaptiveClipping": [NORM_BIT],
    "QFedAvg": ["train_loss"],
}
GROWING = ("FedXgbBagging", "FedXgbCyclic")


@pytest.fixture(autouse=True)
def _no_search_for_garbage(monkeypatch):
    monkeypatch.setattr("gc.collect", lambda *_: 0)


def build(name):
    make, options = getattr(flower, name), OPTIONS.get(name, {})
    parameters = inspect.signature(make).parameters
    if "strategy" in parameters:
        return make(flower.FedAvg(min_train_nodes=7), **options)
    return make(**options)


def trees(client, number):
    """Return a booster of one tree, as XGBoost writes it."""
    model = {
        "gbtree_model_param": {"num_trees": "1", "num_parallel_tree": "1"},
        "iteration_indptr": [0, 1],
        "tree_info": [0],
        "trees": [{"id": 0, "base_weights": [client / 7] * (1 + number)}],
    }
    return json.dumps({"learner": {"gradient_booster": {"model": model}}}).encode()


def answer_of(name, number):
    def answer(client):
        stream = generator(number, "reply", client)
        metrics = {NUM_EXAMPLES: 1 + client, NORM_BIT: client % 2, "train_loss": 0.5 + client}
        kept = (NUM_EXAMPLES, *METRICS_OF.get(name, ()))
        values = {k: torch.randn(s, generator=stream).numpy() for k, s in NAMES.items()}
        arrays = ArrayRecord({k: Array(value) for k, value in values.items()})
        if name in GROWING:
            arrays = ArrayRecord([np.frombuffer(trees(client, number), np.uint8)])
        content = {ARRAYS: arrays, METRICS: MetricRecord({k: metrics[k] for k in kept})}
        return RecordDict(content)

    return answer


def start(name):
    if name in GROWING:
        return ArrayRecord([np.frombuffer(b"", np.uint8)])
    return to_record({key: torch.ones(shape) for key, shape in NAMES.items()})


def rounds(strategy, name):
    """Return the bytes of each round's aggregate and its metrics."""
    arrays, results = start(name), []
    for number in (1, 2, 3):
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002 (Flower's DP draws from it)
        torch.manual_seed(number)
        grid = grid_of(7, answer_of(name, number))
        messages = list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
        arrays, metrics = strategy.aggregate_train(number, list(grid.send_and_receive(messages)))
        results.append(({k: array.data for k, array in arrays.items()}, dict(metrics or {})))
    return results


def test_these_are_flowers_strategies():
    assert len(STRATEGIES) >= 18
    assert set(GROWING) | set(OPTIONS) <= set(STRATEGIES)


@pytest.mark.parametrize("memory", [2**28, 0], ids=["in memory", "on disk"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_behind_recording_it_is_as_alone(name, memory, tmp_path):
    recording = Recording(build(name), tmp_path, memory=memory)
    assert rounds(recording, name) == rounds(build(name), name)
    assert recorded_rounds(tmp_path) == [1, 2, 3]
    clients = recorded_clients(tmp_path, 3)
    assert len(clients) == (0 if name in GROWING else 7)
    assert len(recording.unrecorded) == {"FedXgbBagging": 7, "FedXgbCyclic": 1}.get(name, 0)
    assert not (tmp_path / "rounds" / ".spool").exists()


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in GROWING])
def test_behind_a_fence_it_is_as_alone(name, tmp_path):
    recording = Recording(build(name), tmp_path)
    fence = Fence(recording, metrics=METRICS_OF.get(name, ()))
    fenced = rounds(fence, name)
    assert fenced == rounds(build(name), name)
    assert recording.failures == recording.unrecorded == []


def test_a_reply_that_a_strategy_keeps_can_be_read_in_later_rounds(tmp_path):
    class Keeping(flower.FedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            self.kept = [*getattr(self, "kept", []), replies[0].content["arrays"]]
            return super().aggregate_train(server_round, replies)

    recording = Recording(Keeping(), tmp_path / "a", memory=0)
    recording.tape.record = recording.tape.record.model_copy(update={"clients": ()})
    rounds(recording, "FedAvg")
    alone = Keeping()
    rounds(alone, "FedAvg")
    spool = tmp_path / "a" / "rounds" / ".spool"
    collect()
    assert len(list(spool.iterdir())) == 3
    read = lambda records: [{k: a.data for k, a in record.items()} for record in records]
    assert read(recording.strategy.kept) == read(alone.kept)
    recording.strategy.kept.clear()
    collect()
    assert list(spool.iterdir()) == []
