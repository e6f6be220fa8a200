"""A strategy that sends each client other weights, in a run of fedsim's own."""

from collections import defaultdict
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fedsim import api
from fedsim.config import Part
from fedsim.core.errors import BadRecording, RunStopped
from fedsim.core.params import norm
from fedsim.federation.foreign import App
from strategies import Tape
from strategies.tape_views import views
from tests.builders import rows_without_seconds, same_params, small_config

pytestmark = pytest.mark.usefixtures("undrawn")

NAME = "tests.fedsim.federation.test_personal_run"


class Personal(FedAvg):
    """Sends each client the mean of the global weights and its own last ones."""

    def __init__(self, **options):
        super().__init__(**options)
        self.last = defaultdict(lambda: None)
        self.stream = np.random.default_rng(0)

    def configure_train(self, server_round, arrays, config, grid):
        for message in list(super().configure_train(server_round, arrays, config, grid)):
            node = message.metadata.dst_node_id
            last = self.last[node] or arrays
            mixed = {
                name: Array((array.numpy() + last[name].numpy()) / 2 + self._noise(array))
                for name, array in arrays.items()
            }
            content = RecordDict({**message.content, "arrays": ArrayRecord(mixed)})
            yield Message(content, node, "train")

    def _noise(self, array):
        return self.stream.normal(size=array.shape).astype(np.float32) / 100

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        for reply in replies:
            if not reply.has_error():
                self.last[reply.metadata.src_node_id] = ArrayRecord(
                    {k: Array(a.numpy()) for k, a in reply.content["arrays"].items()}
                )
        return super().aggregate_train(server_round, replies)


class Broken(FedAvg):
    """Gives NaN in round `LAST`."""

    LAST = 2

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        if server_round == self.LAST:
            name = next(iter(arrays))
            arrays[name] = Array(arrays[name].numpy() * np.nan)
        return arrays, metrics


class Twice(FedAvg):
    """Asks each client twice: in its own messages, or by itself through the grid."""

    itself = False

    def configure_train(self, server_round, arrays, config, grid):
        messages = list(super().configure_train(server_round, arrays, config, grid))
        more = [Message(m.content, m.metadata.dst_node_id, "train") for m in messages]
        if not self.itself:
            return messages + more
        list(grid.send_and_receive(more))
        return messages


class TwiceItself(Twice):
    """By itself."""

    itself = True


class Other(FedAvg):
    """Changes an instruction."""

    change: ClassVar = {"server-round": 1}

    def configure_train(self, server_round, arrays, config, grid):
        for message in super().configure_train(server_round, arrays, config, grid):
            if "fedsim" in message.content["config"]:  # not in a rehearsal
                message.content["config"].update(self.change)
            yield message


class OtherSettings(Other):
    """Other settings than the run's."""

    change: ClassVar = {"fedsim": "{}"}


class OtherPull(Other):
    """FedProx's term, of which attacks know nothing."""

    change: ClassVar = {"proximal-mu": 0.5}


class SendsPart(FedAvg):
    """Sends client 1 a part of the model, and ends the process in round `LAST`."""

    LAST = 9

    def configure_train(self, server_round, arrays, config, grid):
        if server_round == self.LAST:
            raise SystemExit(3)
        for message in super().configure_train(server_round, arrays, config, grid):
            node, part = message.metadata.dst_node_id, ArrayRecord(dict([*arrays.items()][:1]))
            mine = part if node == 3 else arrays
            yield Message(RecordDict({**message.content, "arrays": mine}), node, "train")


def config_of(strategy, **federation):
    federation = {"strategy": f"{NAME}:{strategy}", "rounds": 3, "per_round": 3} | federation
    return small_config(federation=federation)


@pytest.mark.twin
def test_norms_attacks_and_resume_take_what_each_client_was_sent(tmp_path):
    run = api.run(config_of("Personal"), tmp_path / "run")
    norms = {
        (row["round"], row["client"]): row["value"]
        for row in run.metrics().to_pylist()
        if row["metric"] == "update_norm"
    }
    local = run.config().local_training()
    for round_ in (1, 2, 3):
        opened = [view.latest for view in views(run.path, round_, local)]
        assert len({id(observation.sent) for observation in opened}) == 3
        for observation in opened:
            update = observation.update
            assert float(norm(update.delta)) == pytest.approx(
                norms[round_, update.client], rel=1e-5
            )
    before = rows_without_seconds(run.ledger())
    [*_, other] = sorted((run.path / "rounds" / "0002" / "sent").iterdir())
    data = other.read_bytes()
    other.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BadRecording, match=other.name):
        api.attack(run.path, [Part(name="llg")])
    other.write_bytes(data)
    api.attack(run.path, [Part(name="llg"), Part(name="idlg")])
    assert rows_without_seconds(run.ledger()) == before

    def interrupt(finished):
        if finished.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.run(config_of("Personal"), tmp_path / "stopped", on_round=interrupt)
    resumed = api.resume(tmp_path / "stopped")
    assert rows_without_seconds(resumed.ledger()) == before
    folder = lambda path: next(iter((path / "state").glob("0003/params.safetensors"))).read_bytes()
    assert len(folder(run.path)) == len(folder(resumed.path))
    from fedsim.run.run_folder import RunFolder

    assert same_params(RunFolder(run.path).final_params(), RunFolder(resumed.path).final_params())


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        ("Twice", "round 1: message: must be the only one to its client in a round, got a second"),
        ("TwiceItself", "round 1: message: must be the only one to its client in a round"),
        ("Other", "round 2: config: must hold the run's own settings .* got 1 for 'server-round'"),
        ("OtherSettings", "round 1: config: must hold .* got {} for 'fedsim'"),
        ("OtherPull", "round 1: `proximal-mu`: must be the strategy's own .* got 0.5 in place of"),
    ],
)
def test_a_client_trains_once_a_round_as_the_config_says(tmp_path, strategy, sentence):
    noise = [{"name": "clip", "bound": 0.1}, {"name": "gaussian", "std": 1.0}]
    config = small_config(
        federation={"strategy": f"{NAME}:{strategy}", "rounds": 2}, defense=noise, attack=[]
    )
    with pytest.raises(RunStopped, match=sentence):
        api.run(config, tmp_path / "run")


def test_a_client_that_is_sent_a_part_of_the_model_says_so(tmp_path):
    config = small_config(federation={"strategy": f"{NAME}:SendsPart", "rounds": 1}, attack=[])
    rows = api.run(config, tmp_path / "run").metrics().to_pylist()
    [failed] = [row for row in rows if row["metric"] == "failed"]
    assert failed["client"] == "1"
    assert "weights sent: must be of the run's model, got missing" in failed["reason"]


def test_a_strategy_that_ends_the_process_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(SendsPart, "LAST", 2)
    config = small_config(federation={"strategy": f"{NAME}:SendsPart", "rounds": 2}, attack=[])
    with pytest.raises(
        RunStopped, match=r"round 2: SendsPart cannot choose clients \(SystemExit: 3"
    ):
        api.run(config, tmp_path / "run")


def test_secure_aggregation_refuses_other_weights_for_each_client(tmp_path):
    config = config_of("Personal", secure_aggregation=True)
    with pytest.raises(Exception, match="must send all clients the same weights, got 3 different"):
        api.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("round_", [1, 2])
def test_a_nan_aggregate_is_not_committed_and_the_run_goes_on_once_it_is_mended(
    tmp_path, monkeypatch, round_
):
    monkeypatch.setattr(Broken, "LAST", round_)
    config, path = config_of("Broken"), tmp_path / "run"
    sentence = rf"^round {round_}: the aggregate of Broken must be a finite model, got 1.weight: "
    with pytest.raises(RunStopped, match=sentence):
        api.run(config, path)
    if round_ == 2:
        with pytest.raises(RunStopped, match=sentence):
            api.resume(path)
    assert path.exists() is (round_ == 2)
    monkeypatch.setattr(Broken, "LAST", None)
    run = api.run(config, path) if round_ == 1 else api.resume(path)
    straight = api.run(config, tmp_path / "straight")
    assert rows_without_seconds(run.ledger()) == rows_without_seconds(straight.ledger())


def small():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def test_clients_with_a_part_of_the_model_are_named_and_the_others_attacked(tmp_path):
    """As when a strategy sends sub-models: client 0 has fewer hidden units."""
    tape, whole = Tape(tmp_path), {k: v.clone() for k, v in small().state_dict().items()}
    part = {"0.weight": whole["0.weight"][:5], "0.bias": whole["0.bias"][:5]}
    part |= {"2.weight": whole["2.weight"][:, :5], "2.bias": whole["2.bias"]}
    tape.write_sent(1, whole)
    tape.write_sent(1, part, "a" * 32)
    for client, sent in (("0", part), ("1", whole), ("2", whole)):
        moved = {name: value - 0.01 for name, value in sent.items()}
        name = "a" * 32 if client == "0" else None
        tape.write_upload(1, client, moved, 8, "weights", sent=name)
    tape.finish(1)
    app = App(model=f"{NAME}:small", num_classes=3, lr=0.1, batch_size=8, input_shape=(4,))
    rows = api.attack(tmp_path, [Part(name="llbg"), Part(name="idlg")], app=app).to_pylist()
    assert {(row["client"], row["outcome"]) for row in rows} == {
        ("0", "refused"), ("1", "no truth"), ("2", "no truth")
    }  # fmt: skip
    reasons = {
        (row["client"], row["metric"]): row["reason"]
        for row in api.Run(tmp_path).metrics().to_pylist()
        if row["metric"].endswith("_refused")
    }
    sentence = (
        "weights sent: must be of the config's model: 0.weight: shape must be (8, 4), got (5, 4)"
    )
    assert reasons[("0", "llbg_refused")] == sentence
    assert reasons[("0", "idlg_refused")] == sentence
    wrong = replace(app, model="tests.strategies.test_recording:nothing_like_it")
    with pytest.raises(Exception, match="model"):
        api.attack(tmp_path, [Part(name="llbg")], app=wrong)
