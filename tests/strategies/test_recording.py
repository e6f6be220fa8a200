import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

import strategies.recording
from fedsim.core.types import LocalTraining
from fedsim.core.wire import to_record
from strategies import Recording, Tape
from strategies.tape import recorded_clients, recorded_rounds, views
from tests.builders import grid_of, norms, reply_with

SENT = {"w": torch.ones(3), "b": torch.zeros(1)}
LOCAL = LocalTraining(lr=0.1, batch_size=4)


def upload(client, **changes):
    arrays = {"w": np.full(3, client, np.float32), "b": np.ones(1, np.float32)} | changes
    return reply_with({k: v for k, v in arrays.items() if v is not None}, client + 1)


def one_round(recording, grid, round_=1):
    messages = recording.configure_train(round_, to_record(SENT), ConfigRecord(), grid)
    return recording.aggregate_train(round_, grid.send_and_receive(messages))


def record(tmp_path, answer, num_clients=3, **options):
    recording = Recording(
        FedAvg(min_train_nodes=1), tmp_path, **{"client_of": lambda node: str(node - 2)} | options
    )
    arrays, metrics = one_round(recording, grid_of(num_clients, answer))
    return recording, arrays, metrics


def test_uploads_are_on_tape_as_they_came(tmp_path):
    recording, arrays, _ = record(tmp_path, upload)
    assert recorded_rounds(tmp_path) == [1]
    assert recorded_clients(tmp_path, 1) == ["0", "1", "2"]
    for view in views(tmp_path, 1, LOCAL):
        update = view.latest.update
        assert update.num_examples == int(update.client) + 1
        assert torch.equal(update.delta["w"], torch.full((3,), float(update.client)) - 1)
        assert torch.equal(view.latest.sent["w"], SENT["w"])
        assert recording.norms[update.client] == pytest.approx(norms([update.delta])[0])
    assert arrays["w"].numpy() == pytest.approx(np.full(3, (0 * 1 + 1 * 2 + 2 * 3) / 6))


def two_arrays(client):
    content = upload(client)
    content["more"] = ArrayRecord()
    return content


def raw(client, data):
    content = upload(client)
    arrays = {"w": Array("float32", (3,), "numpy.ndarray", data), "b": Array(np.ones(1))}
    content["arrays"] = ArrayRecord(arrays)
    return content


def text(client):
    return raw(client, b"\x80\x04K\x01.")


def without_metrics(client):
    return RecordDict({"arrays": upload(client)["arrays"]})


FAULTS = {
    "error": (lambda c: ValueError("no more memory"), "no more memory"),
    "nothing": (lambda c: None, "no reply in time"),
    "nan": (lambda c: upload(c, w=np.array([1, np.nan, 1], np.float32)), "w: must be finite"),
    "infinite": (lambda c: upload(c, b=np.array([np.inf], np.float32)), "b: must be finite"),
    "shape": (
        lambda c: upload(c, w=np.ones(4, np.float32)),
        r"w: shape must be \(3,\), got \(4,\)",
    ),
    "missing": (lambda c: upload(c, b=None), "missing b"),
    "unknown": (lambda c: upload(c, z=np.ones(1)), "unknown z"),
    "records": (two_arrays, "must hold one ArrayRecord, got 2"),
    "pickle": (text, "arrays: must be numeric NumPy arrays"),
    "metrics": (without_metrics, "must hold one MetricRecord, got 0"),
    "weight": (
        lambda c: reply_with({"w": np.ones(3), "b": np.ones(1)}, -1),
        "num-examples: must be",
    ),
    "zip": (lambda c: raw(c, b"PK\x03\x04"), "arrays: must be numeric NumPy arrays"),
    "header": (
        lambda c: raw(c, b"\x93NUMPY\x01\x00\x06\x00{((((\n"),
        "arrays: must be numeric NumPy arrays",
    ),
    "weight-nan": (
        lambda c: reply_with({"w": np.ones(3), "b": np.ones(1)}, float("nan")),
        "num-examples: must be",
    ),
}


@pytest.mark.parametrize("name", ["w", "z"])
def test_a_gibibyte_is_refused_before_it_is_decoded(tmp_path, name, monkeypatch):
    decoded = []
    decode = strategies.recording.from_record
    monkeypatch.setattr(
        strategies.recording, "from_record", lambda r: (decoded.append(r), decode(r))[1]
    )

    def huge(client):
        content = upload(client)
        content["arrays"][name] = Array("float32", (3,), "numpy.ndarray", bytes(2**30))
        return content

    faulty, arrays, _ = record(tmp_path, lambda c: huge(c) if c == 1 else upload(c))
    assert faulty.failures == [
        ("1", f"{name}: must hold at most {4144 if name == 'w' else 4096} bytes, got {2**30}")
    ]
    assert len(decoded) == 3  # what is sent, and two uploads
    assert arrays["w"].numpy() == pytest.approx(np.full(3, (0 * 1 + 2 * 3) / 4))


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unusable_upload_is_left_out_with_a_reason_and_the_rest_aggregated(tmp_path, fault):
    answer, reason = FAULTS[fault]
    faulty, arrays, _ = record(tmp_path, lambda c: answer(c) if c == 1 else upload(c))
    [(client, said)] = faulty.failures
    assert client == "1"
    assert pytest.importorskip("re").search(reason, said), said
    assert recorded_clients(tmp_path, 1) == ["0", "2"]
    assert arrays["w"].numpy() == pytest.approx(np.full(3, (0 * 1 + 2 * 3) / 4))


def test_an_error_from_the_superlink_is_laid_at_the_clients_door(tmp_path):
    recording = Recording(FedAvg(min_train_nodes=1), tmp_path, client_of=lambda node: str(node - 2))
    grid = grid_of(2, upload)
    messages = list(recording.configure_train(1, to_record(SENT), ConfigRecord(), grid))
    replies = list(grid.send_and_receive(messages))
    late = Message(Error(code=1, reason="node unavailable"), reply_to=messages[1])
    late.metadata.__dict__["_src_node_id"] = 1
    recording.aggregate_train(1, [replies[0], late])
    assert recording.failures == [
        ("1" if messages[1].metadata.dst_node_id == 3 else "0", "node unavailable")
    ]


def test_what_is_recorded_can_be_chosen(tmp_path):
    tape = Tape(tmp_path, every=2, clients=["0", "2"])
    recording = Recording(FedAvg(), tape, client_of=lambda node: str(node - 2))
    for round_ in (1, 2, 3):
        one_round(recording, grid_of(3, upload), round_)
    assert recorded_rounds(tmp_path) == [1, 3]
    assert recorded_clients(tmp_path, 1) == ["0", "2"]
    views_of_0 = next(view for view in views(tmp_path, 3, LOCAL))
    assert [o.update.round for o in views_of_0.observations] == [1, 3]


def test_large_rounds_are_spooled_to_disk_and_leave_nothing_behind(tmp_path):
    seen = {}

    class Looking(FedAvg):
        def aggregate_train(self, server_round, replies):
            for reply in replies:
                array = reply.content.array_records["arrays"]["w"]
                seen[reply.metadata.src_node_id - 2] = array.fetch.func.__name__
            return super().aggregate_train(server_round, replies)

    tape = Tape(tmp_path, clients=["0"])
    recording = Recording(Looking(), tape, client_of=lambda node: str(node - 2), memory=20)
    arrays, _ = one_round(recording, grid_of(3, upload))
    assert sorted(seen.values()) == [
        "_from_file",
        "_from_file",
        "_from_memory",
    ]  # one of 16 bytes fits
    assert arrays["w"].numpy() == pytest.approx(np.full(3, 8 / 6))
    assert not (tmp_path / "rounds" / ".spool").exists()
    assert recorded_clients(tmp_path, 1) == ["0"]


def test_a_path_with_rounds_is_not_overwritten(tmp_path):
    record(tmp_path, upload)
    with pytest.raises(Exception, match="tape: must be a folder without rounds"):
        Recording(FedAvg(), tmp_path)


def test_metrics_of_others_pass_through(tmp_path):
    recording, _, metrics = record(tmp_path, upload)
    assert isinstance(metrics, MetricRecord)
    recording.summary()
    evaluate = list(
        recording.configure_evaluate(1, to_record(SENT), ConfigRecord(), grid_of(3, upload))
    )
    assert len(evaluate) == 3
    assert recording.aggregate_evaluate(1, []) is None


def test_the_strategys_own_weight_is_used_and_no_examples_is_no_error(tmp_path):
    def answer(client):
        content = upload(client)
        content["metrics"] = MetricRecord({"n": client})
        return content

    inner = FedAvg(min_train_nodes=1, weighted_by_key="n")
    recording = Recording(inner, tmp_path, client_of=lambda node: str(node - 2))
    arrays, _ = one_round(recording, grid_of(3, answer))
    assert recording.failures == []
    assert recorded_clients(tmp_path, 1) == ["1", "2"]  # client 0 has no examples to attack
    assert arrays["w"].numpy() == pytest.approx(np.full(3, (1 * 1 + 2 * 2) / 3))


def test_a_strategy_that_sends_no_arrays_is_left_alone(tmp_path):
    class Silent(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            return [Message(RecordDict(), node, "train") for node in grid.get_node_ids()]

    recording = Recording(Silent(), tmp_path, client_of=lambda node: str(node - 2))
    arrays, _ = one_round(recording, grid_of(3, upload))
    assert arrays["w"].numpy() == pytest.approx(np.full(3, 8 / 6))
    assert recorded_rounds(tmp_path) == []
