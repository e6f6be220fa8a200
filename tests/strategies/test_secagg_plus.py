"""Flower's own SecAgg+, run by its own workflow and mod over an in-process Grid."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow, SecAggWorkflow

from fedsim import api
from fedsim.config import Part
from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining
from fedsim.federation.foreign import App
from fedsim.federation.grid import SimulationGrid
from strategies import Tape
from strategies.legacy import LegacyRecording
from strategies.secagg_plus import SecAggPlusRecording
from strategies.tape import members_of, recorded_clients, recorded_rounds
from strategies.tape_views import views

CLIENTS, LR, BATCH = 5, 0.1, 20
NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]
LOCAL = LocalTraining(lr=LR, batch_size=BATCH)


def net():
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def data_of(client):
    """Return one client's examples: of three classes, mostly one."""
    stream = generator(0, "secagg", client)
    labels = torch.tensor([0] * (10 + client) + [1] * 3 + [2])
    return torch.randn(len(labels), 4, generator=stream) + 2 * labels[:, None], labels


def trained(arrays, client):
    """Return the arrays after one step on all of a client's examples."""
    model, (inputs, labels) = net(), data_of(client)
    model.load_state_dict(dict(zip(NAMES, map(torch.from_numpy, arrays), strict=True)))
    torch.nn.functional.cross_entropy(model(inputs), labels).backward()
    return [(value - LR * value.grad).detach().numpy() for value in model.parameters()]


class Client(NumPyClient):
    def __init__(self, number):
        self.number = number

    def fit(self, parameters, config):
        arrays = trained([np.array(p) for p in parameters], self.number)
        return arrays, len(data_of(self.number)[1]), {}


def run(tape, *, lost=(), silent=(), workflow=None, names=NAMES, rounds=2, wrap=None, **options):
    """Run Flower's workflow.

    Clients of `lost` drop out when masked vectors are collected, of `silent` after that. With
    `wrap`, the strategy is recorded in place of the Grid.
    """

    def client_fn(context: Context):
        return Client(int(context.node_config["partition-id"])).to_client()

    app = ClientApp(client_fn=client_fn, mods=[secaggplus_mod])

    def execute(jobs, timeout):
        for message, context in jobs:
            client = int(context.node_config["partition-id"])
            stage = message.content.config_records["secaggplus_configs"]["stage"]
            if (client in lost and stage in ("collect_masked_vectors", "unmask")) or (
                client in silent and stage == "unmask"
            ):
                yield Message(Error(code=0, reason="gone"), reply_to=message), context
                continue
            arrived = copy.deepcopy(message)  # as over the wire: the mod takes parts out of it
            yield app(arrived, context), context

    class FlowerLike(SimulationGrid):
        @property
        def run(self):
            return SimpleNamespace(run_id=1)

        def send_and_receive(self, messages, *, timeout=None):
            return list(super().send_and_receive(messages, timeout=timeout))

    grid = FlowerLike(CLIENTS, execute, Path("unused"))
    torch.manual_seed(0)
    start = [value.detach().numpy().copy() for value in net().parameters()]
    strategy = FedAvg(
        initial_parameters=ndarrays_to_parameters(start), fraction_evaluate=0.0,
        min_fit_clients=CLIENTS, min_available_clients=CLIENTS,
    )  # fmt: skip
    plain = Context(1, 1, {}, RecordDict(), {})
    strategy = wrap(strategy) if wrap else strategy
    context = LegacyContext(plain, config=ServerConfig(num_rounds=rounds), strategy=strategy)
    recording = SecAggPlusRecording(
        grid, tape, names=names, client_of=lambda node: str(node - 2), **options
    )
    protocol = workflow or SecAggPlusWorkflow(num_shares=5, reconstruction_threshold=3)
    DefaultWorkflow(fit_workflow=protocol)(grid if wrap else recording, context)
    final = next(iter(context.state.array_records.values()))
    return start, [array.numpy() for array in final.values()]


@pytest.mark.parametrize(
    ("lost", "workflow"),
    [((), None), ((1,), None), ((0, 3), None), ((2,), SecAggWorkflow(reconstruction_threshold=3))],
)
def test_the_tape_has_the_mean_that_the_protocol_reveals_and_no_client(tmp_path, lost, workflow):
    start, final = run(tmp_path, lost=lost, workflow=workflow)
    there = [k for k in range(CLIENTS) if k not in lost]
    weights = [len(data_of(k)[1]) for k in there]
    assert recorded_rounds(tmp_path) == [1, 2]
    [name] = recorded_clients(tmp_path, 1)
    assert recorded_clients(tmp_path, 2) == [name]
    assert members_of(tmp_path, 1, name) == tuple(map(str, there))
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["files.json"] * 2 + ["sent.safetensors"] * 2 + ["uploads.safetensors"] * 2
    [view] = views(tmp_path, 2, LOCAL)
    first, second = view.observations
    for place, key in enumerate(NAMES):
        assert torch.equal(first.sent[key], torch.from_numpy(start[place]))
        step = sum(n * trained(start, k)[place] for n, k in zip(weights, there, strict=True))
        delta = step / sum(weights) - start[place]
        # 2^22 steps over ± 8 for x·n/1000, rounded at random.
        error = 16 / 2**22 * len(there) / (sum(weights) / 1000)
        assert np.abs(first.update.delta[key].numpy() / len(there) - delta).max() < error
        assert np.abs(first.update.delta[key].numpy()).max() > 100 * error / len(there)
        # What it computes is what Flower's own server did: the global model of the next round.
        mean = second.sent[key].double() + second.update.delta[key] / len(there)
        assert np.allclose(mean, final[place], atol=1e-12)
    assert first.update.num_examples == sum(weights)
    assert first.update.num_clients == len(there)


def test_a_round_that_the_protocol_gives_up_is_not_on_tape(tmp_path):
    run(tmp_path, lost=(0, 1, 2))
    assert recorded_rounds(tmp_path) == []


def test_recording_can_be_told_which_rounds_but_not_whose(tmp_path):
    run(Tape(tmp_path, every=2), rounds=3)
    assert recorded_rounds(tmp_path) == [1, 3]
    with pytest.raises(ConfigError, match="record.clients: must be left out .*got"):
        run(Tape(tmp_path / "other", clients=["0"]))


def test_names_that_do_not_fit_are_refused_before_anybody_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(Client, "fit", lambda *_: pytest.fail("trained"))
    with pytest.raises(ConfigError, match="names: must be those of the 4 arrays sent, got 3"):
        run(tmp_path / "wrong", names=NAMES[:3])


def test_too_few_shares_leave_no_round_and_say_so(tmp_path, caplog):
    with caplog.at_level("WARNING", "flwr"):
        run(tmp_path, silent=(0, 1, 2), rounds=1)
    assert "round 1: not on tape (shares: must suffice for node" in caplog.text
    assert recorded_rounds(tmp_path) == []


def test_attacks_on_labels_run_on_the_sum_and_others_say_why_not(tmp_path):
    run(tmp_path / "tape", rounds=1)
    for k in range(CLIENTS):
        from fedsim.core.files import save_tensors

        path = tmp_path / "truth" / "0001" / f"{k}.safetensors"
        save_tensors(path, {"labels": data_of(k)[1]}, {"round": 1, "client": k})
    app = App(
        model="tests.strategies.test_secagg_plus:net", num_classes=3, lr=LR, batch_size=BATCH,
        input_shape=(4,), truth=str(tmp_path / "truth"),
    )  # fmt: skip
    names = ("llbg", "rlg", "dlg", "analytic")
    rows = api.attack(tmp_path / "tape", [Part(name=name) for name in names], app=app).to_pylist()
    asr = {row["attack"]: row for row in rows if row["metric"] == "asr"}
    assert asr["llbg"]["value"] > asr["llbg"]["blind"] + 0.2
    assert asr["llbg"]["value"] > 0.9
    [name] = recorded_clients(tmp_path / "tape", 1)
    reasons = {
        row["metric"]: row["reason"]
        for row in api.Run(tmp_path / "tape").metrics().to_pylist()
        if row["metric"].endswith("_refused")
    }
    assert reasons == {
        "dlg_refused": "num_clients: must be 1 to reconstruct examples, got 5",
        "analytic_refused": "num_clients: must be 1 to reconstruct examples, got 5",
    }
    page = (tmp_path / "tape" / "report.html").read_text()
    assert f"True and inferred labels of client {name}" in page
    assert "num_clients: must be 1 to reconstruct examples, got 5" in page


def test_around_the_strategy_the_mean_is_recorded_and_as_no_clients_own(tmp_path):
    wrapped = []

    def wrap(strategy):
        tape = tmp_path / "strategy"
        wrapped.append(
            LegacyRecording(strategy, tape, names=NAMES, client_of=lambda cid: str(int(cid) - 2))
        )
        return wrapped[0]

    run(tmp_path / "grid", lost=(1,))
    run(tmp_path / "unused", lost=(1,), wrap=wrap)
    [name] = recorded_clients(tmp_path / "grid", 1)
    assert recorded_clients(tmp_path / "strategy", 1) == [name]
    assert members_of(tmp_path / "strategy", 1, name) == ("0", "2", "3", "4")
    assert wrapped[0].recording.failures == [("1", "no reply in time")]
    [mine], [theirs] = (list(views(tmp_path / it, 1, LOCAL)) for it in ("strategy", "grid"))
    assert mine.latest.update.num_clients == 4
    assert mine.latest.update.num_examples == theirs.latest.update.num_examples
    for key in NAMES:  # rounded at random by the clients
        assert torch.allclose(
            mine.latest.update.delta[key].double(),
            theirs.latest.update.delta[key].double(),
            atol=1e-2,
        )
