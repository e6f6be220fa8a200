"""`Recording(strategy)` aggregates bit for bit as `strategy` alone, whichever it is."""

import json
import random
import threading
from collections import Counter, deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAvg

import strategies
from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from fedsim.core.wire import to_record
from strategies import STRATEGIES, Recording, state
from tests.builders import grid_of, reply_with, small_config

pytestmark = pytest.mark.untyped

NAMES = {"w": (3, 2), "b": (3,)}
OPTIONS = {"fedprox": {"proximal_mu": 0.1}, "fedavgm": {"server_momentum": 0.9}}


@pytest.fixture(autouse=True)
def _no_search_for_garbage(monkeypatch):
    """Flower's Bulyan asks for one per upload, which takes 0.1 s with all of fedsim imported."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)


def strategy_of(name):
    options = {"clients": 7, "strategy": name, "options": OPTIONS.get(name, {})}
    config = small_config(federation=options)
    return strategies.build(config.federation, lr=config.local.lr, buffers=[])


def rounds(strategy, numbers, arrays):
    """Yield each round's aggregate, fed with replies that depend on round and client alone."""
    for number in numbers:

        def answer(client, number=number):
            stream = generator(number, "reply", client)
            values = {k: torch.randn(s, generator=stream).numpy() for k, s in NAMES.items()}
            return reply_with(values, 1 + client)

        grid = grid_of(7, answer)
        with strategies.sampling(0, number):
            messages = strategy.configure_train(number, arrays, ConfigRecord(), grid)
        arrays, metrics = strategy.aggregate_train(number, grid.send_and_receive(messages))
        yield arrays, metrics


def start():
    return to_record({name: torch.ones(shape) for name, shape in NAMES.items()})


def assert_same(one, other):
    assert list(one) == list(other)
    for name in one:
        left, right = one[name].numpy(), other[name].numpy()
        assert left.dtype == right.dtype
        assert np.array_equal(left, right)


@pytest.mark.parametrize("memory", [2**28, 0], ids=["in memory", "on disk"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_recording_changes_no_bit(name, memory, tmp_path):
    alone = rounds(strategy_of(name), [1, 2, 3], start())
    wrapped = rounds(Recording(strategy_of(name), tmp_path, memory=memory), [1, 2, 3], start())
    for (arrays, metrics), (recorded, same_metrics) in zip(alone, wrapped, strict=True):
        assert_same(arrays, recorded)
        assert metrics == same_metrics


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_restored_strategy_goes_on_as_the_one_it_was_taken_from(name):
    straight = list(rounds(strategy_of(name), [1, 2, 3, 4], start()))
    first = strategy_of(name)
    *_, (middle, _) = rounds(first, [1, 2], start())
    tensors, description = state.capture(first)
    second = strategy_of(name)
    state.restore(second, tensors, description)
    again = rounds(second, [3, 4], middle)
    for (arrays, _), (resumed, _) in zip(straight[2:], again, strict=True):
        assert_same(arrays, resumed)


def test_a_strategy_inside_a_strategy_is_restored_too():
    from flwr.serverapp.strategy import DifferentialPrivacyClientSideAdaptiveClipping as Adaptive
    from flwr.serverapp.strategy import FedAdam

    build = lambda: Adaptive(FedAdam(), noise_multiplier=0.1, num_sampled_clients=20)
    one, other = build(), build()
    one.clipping_norm = 0.37
    one.strategy.m_t = {"w": np.ones(2)}
    tensors, description = state.capture(one)
    state.restore(other, tensors, description)
    assert other.clipping_norm == 0.37
    assert np.array_equal(other.strategy.m_t["w"], np.ones(2))
    assert other.strategy.aggregate_train.__self__ is other.strategy


class Holding(FedAvg):
    """A strategy with memory of many kinds."""

    def __init__(self, seed=0):
        super().__init__()
        self.functions = [len, "text"]
        self.by_node = {3: np.ones(2), 5: to_record({"w": torch.ones(2)})}
        self.nested = {"a": [(1, 2.5), {None: "x"}], "b": torch.arange(3)}
        self.counts = Counter({"a": 1})
        self.stream, self.coins = np.random.default_rng(seed), random.Random(seed)
        self.odd = np.array(["text"])
        self.among = [self]
        self.itself = self


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ({1, 2}, lambda it: it.add(3)),
        (SimpleNamespace(count=0), lambda it: setattr(it, "count", 1)),
        (torch.nn.Linear(2, 1), lambda it: torch.nn.init.zeros_(it.weight)),
        (
            {"models": [torch.nn.Linear(2, 1)]},
            lambda it: torch.nn.init.zeros_(it["models"][0].weight),
        ),
    ],
    ids=["set", "object", "module", "nested"],
)
def test_memory_that_cannot_be_kept_is_refused_at_resume_once_it_changed(value, change):
    strategy, other = FedAvg(), FedAvg()
    strategy.memory, strategy.lock = value, threading.Lock()
    strategy.mine, strategy.inner, other.inner = (lambda: 0), FedAvg(), FedAvg()
    built = state.objects(strategy)
    tensors, description = state.capture(strategy, built)
    state.restore(other, tensors, description)
    change(value)
    tensors, description = state.capture(strategy, built)
    with pytest.raises(ConfigError, match="memory: must be plain data, .* in FedAvg.memory"):
        state.restore(other, tensors, json.loads(json.dumps(description)))


def test_a_deque_comes_back_with_its_length():
    one, other = FedAvg(), FedAvg()
    one.last = deque([torch.ones(2), 3.5], maxlen=2)
    tensors, description = state.capture(one, state.objects(one))
    state.restore(other, tensors, json.loads(json.dumps(description)))
    assert other.last.maxlen == 2
    assert torch.equal(other.last[0], torch.ones(2))
    assert other.last[1] == 3.5


def test_all_plain_memory_comes_back_and_the_rest_stays_as_built():
    first, second = Holding(), Holding(7)
    first.by_node = {8: np.zeros(2), 5: to_record({"w": torch.zeros(2)})}
    first.nested["a"][0] = (3, 4.5)
    first.counts["b"] += 2
    first.stream.random()
    first.coins.random()
    tensors, description = state.capture(first)
    state.restore(second, tensors, json.loads(json.dumps(description)))
    assert second.functions == [len, "text"]
    assert second.by_node[8].tolist() == [0, 0]
    assert second.by_node[5]["w"].numpy().tolist() == [0, 0]
    assert second.nested["a"] == [(3, 4.5), {None: "x"}]
    assert second.nested["b"].tolist() == [0, 1, 2]
    assert second.counts["b"] == 2
    assert second.counts["absent"] == 0
    assert second.stream.random() == first.stream.random()
    assert second.coins.random() == first.coins.random()
    assert second.itself is second
    assert second.odd.tolist() == ["text"]
