"""Flower's legacy API: its own loop and NumPyClient, with the recorder around the strategy."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.typing import FitIns, Parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server import strategy as legacy
from flwr.server.workflow import DefaultWorkflow
from flwr.serverapp.strategy import FedAvg

from defenses import clip
from fedsim.core.errors import ConfigError
from fedsim.core.types import LocalTraining
from fedsim.federation.grid import SimulationGrid
from fedsim.federation.mods import as_mod
from strategies import Fence, Recording, SecureAggregation
from strategies.legacy import LegacyRecording
from strategies.tape import recorded_clients, recorded_rounds
from strategies.tape_views import views
from tests.strategies.test_secagg_plus import BATCH, LR, NAMES, Client, data_of, net, trained

CLIENTS = 4
LOCAL = LocalTraining(lr=LR, batch_size=BATCH)


def start():
    torch.manual_seed(0)
    return [value.detach().numpy().copy() for value in net().parameters()]


def run(wrap=lambda strategy: strategy, make=legacy.FedAvg, mods=(), client=Client, **options):
    """Run two rounds of Flower's legacy server, and return the final arrays."""

    def client_fn(context: Context):
        return client(int(context.node_config["partition-id"])).to_client()

    app = ClientApp(client_fn=client_fn, mods=list(mods))

    def execute(jobs, timeout):
        for message, context in jobs:
            yield app(message, context), context

    class FlowerLike(SimulationGrid):
        @property
        def run(self):
            return SimpleNamespace(run_id=1)

        def send_and_receive(self, messages, *, timeout=None):
            return list(super().send_and_receive(messages, timeout=timeout))

    grid = FlowerLike(CLIENTS, execute, Path("unused"))
    strategy = make(
        initial_parameters=ndarrays_to_parameters(start()), fraction_evaluate=0.0,
        min_fit_clients=CLIENTS, min_available_clients=CLIENTS, **options,
    )  # fmt: skip
    plain = Context(1, 1, {}, RecordDict(), {})
    config = ServerConfig(num_rounds=2)
    context = LegacyContext(plain, config=config, strategy=wrap(strategy))
    DefaultWorkflow()(grid, context)
    final = next(iter(context.state.array_records.values()))
    return [array.numpy() for array in final.values()]


@pytest.mark.parametrize("make", [legacy.FedAvg, legacy.FedAdam, legacy.Krum])
def test_a_legacy_app_runs_as_before_and_is_on_tape(tmp_path, make):
    wrapped = []

    def wrap(strategy):
        recorder = LegacyRecording(
            strategy, tmp_path, names=NAMES, client_of=lambda cid: str(int(cid) - 2)
        )
        wrapped.append(recorder)
        return recorder

    final, alone = run(wrap, make), run(make=make)
    if make is not legacy.Krum:  # order of replies decides its ties
        assert all(np.allclose(a, b, atol=1e-7) for a, b in zip(final, alone, strict=True))
    assert recorded_rounds(tmp_path) == [1, 2]
    assert recorded_clients(tmp_path, 1) == ["0", "1", "2", "3"]
    for view in views(tmp_path, 1, LOCAL):
        client = int(view.latest.update.client)
        expected = trained(start(), client)
        for name, before, after in zip(NAMES, start(), expected, strict=True):
            assert np.array_equal(view.latest.update.delta[name].numpy(), after - before)
        assert view.latest.update.num_examples == len(data_of(client)[1])
    assert wrapped[0].recording.failures == []


def proxies(count):
    return [SimpleNamespace(cid=str(k)) for k in range(count)]


class Stub:
    """A legacy strategy whose instructions are given, and that shows what it got."""

    def __init__(self, sent):
        self.sent = sent

    def configure_fit(self, server_round, parameters, client_manager):
        return list(zip(proxies(len(self.sent)), self.sent, strict=True))

    def aggregate_fit(self, server_round, results, failures):
        self.results, self.failures = results, failures
        return "aggregate", {"a": 1}


def fit(values, num_examples=3):
    return SimpleNamespace(parameters=ndarrays_to_parameters(values), num_examples=num_examples)


def one_round(strategy, tmp_path, results, **options):
    SimulationGrid(1, None, tmp_path)  # names the run, as a ServerApp does
    recorder = LegacyRecording(strategy, tmp_path, **options)
    recorder.configure_fit(1, None, None)
    answered = list(zip(proxies(len(results)), results, strict=True))
    assert recorder.aggregate_fit(1, answered, ["failure"]) == ("aggregate", {"a": 1})
    assert strategy.results is answered
    assert strategy.failures == ["failure"]
    return recorder


def test_each_client_is_recorded_with_what_it_was_sent(tmp_path):
    sent = [FitIns(ndarrays_to_parameters([np.full(2, float(k))]), {}) for k in range(3)]
    recorder = one_round(Stub(sent), tmp_path, [fit([np.full(2, k + 1.0)]) for k in range(3)])
    assert recorder.recording.norms == pytest.approx(dict.fromkeys("012", 2**0.5))
    for view in views(tmp_path, 1, LOCAL):
        assert view.latest.update.delta["0"].tolist() == [1.0, 1.0]


def test_trees_and_other_shapes_pass_and_are_logged_once(tmp_path, caplog):
    sent = [FitIns(Parameters([b"{trees}"], ""), {})] * 2
    odd = SimpleNamespace(parameters=Parameters([b"{more trees}"], ""), num_examples=3)
    recorder = one_round(Stub(sent), tmp_path, [odd, odd])
    assert len(recorder.recording.unrecorded) == 2
    assert recorded_clients(tmp_path, 1) == []
    assert len([r for r in caplog.records if "is not on tape" in r.getMessage()]) == 1


def test_as_many_names_as_arrays(tmp_path):
    sent = [FitIns(ndarrays_to_parameters([np.ones(2), np.ones(3)]), {})]
    recorder = LegacyRecording(Stub(sent), tmp_path, names=["w"])
    with pytest.raises(ConfigError, match="names: must be those of the 2 arrays sent, got 1"):
        recorder.configure_fit(1, None, None)


def test_the_rest_is_the_strategys_own(tmp_path):
    inner = legacy.FedAvg(min_fit_clients=7)
    recorder = LegacyRecording(inner, tmp_path)
    assert recorder.min_fit_clients == 7
    assert recorder.evaluate(0, ndarrays_to_parameters([])) is None


@pytest.mark.parametrize(
    "make",
    [Fence, lambda s: Recording(s, "unused"), lambda s: SecureAggregation(s, secret=1)],
    ids=["fence", "recording", "secure"],
)
@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        (legacy.FedAvg(), "got the legacy API's FedAvg; write strategies.legacy.LegacyRecording"),
        (FedAvg, r"must be an object, got the class FedAvg; write FedAvg\(...\)"),
        (None, "must be one of flwr.serverapp.strategy, got NoneType"),
    ],
    ids=["legacy", "class", "none"],
)
def test_what_is_no_strategy_is_refused_with_what_to_write(make, strategy, sentence):
    with pytest.raises(ConfigError, match=rf"^strategy: .*{sentence}"):
        make(strategy)
    assert not Path("unused").exists()


def test_either_recorder_in_the_others_place_says_so(tmp_path):
    with pytest.raises(ConfigError, match="Recording is for those of flwr.serverapp.strategy"):
        LegacyRecording(FedAvg(), tmp_path)
    sentence = "^server_fn: must be given strategies.legacy.LegacyRecording.*got Recording"
    with pytest.raises(ConfigError, match=sentence):
        Recording(FedAvg(), tmp_path).initialize_parameters(None)


def test_a_defense_stands_before_a_numpy_client(tmp_path):
    wrap = lambda s: LegacyRecording(s, tmp_path, names=NAMES)
    run(wrap, mods=[as_mod(clip(bound=1e-3))])
    for view in views(tmp_path, 1, LOCAL):
        delta = view.latest.update.delta
        size = torch.cat([delta[name].flatten() for name in delta]).norm()
        assert float(size) == pytest.approx(1e-3, rel=1e-2)


def test_parameters_are_not_changed(tmp_path):
    sent = ndarrays_to_parameters([np.arange(3.0)])
    one_round(Stub([FitIns(sent, {})]), tmp_path, [fit([np.ones(3)])])
    assert parameters_to_ndarrays(sent)[0].tolist() == [0, 1, 2]
    assert isinstance(Client(0), NumPyClient)
