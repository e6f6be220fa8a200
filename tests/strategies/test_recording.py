import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedsim.core.errors import BadRecording
from fedsim.core.types import LocalTraining
from fedsim.core.wire import to_record
from strategies import Recording, Tape
from strategies.tape import recorded_clients, recorded_rounds
from strategies.tape_views import views
from tests.builders import grid_of, norms, reply_with, same_params

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


@pytest.mark.parametrize("prefix", ["", "a/../b/", "c" * 300])
def test_large_rounds_are_spooled_to_disk_and_leave_nothing_behind(tmp_path, prefix):
    seen = {}

    class Looking(FedAvg):
        def aggregate_train(self, server_round, replies):
            for reply in replies:
                array = reply.content.array_records["arrays"]["w"]
                fetch = array.fetch.func
                seen[reply.metadata.src_node_id - 2] = getattr(
                    fetch, "__name__", type(fetch).__name__
                )
            return super().aggregate_train(server_round, replies)

    tape = Tape(tmp_path, clients=[f"{prefix}0"])
    recording = Recording(Looking(), tape, client_of=lambda node: f"{prefix}{node - 2}", memory=20)
    arrays, _ = one_round(recording, grid_of(3, upload))
    assert list(seen.values()).count("from_memory") == 1  # one of 16 bytes fits
    assert set(seen.values()) <= {"from_memory", "Written", "Spooled"}
    assert arrays["w"].numpy() == pytest.approx(np.full(3, 8 / 6))
    assert [path.name for path in (tmp_path / "rounds").iterdir()] == ["0001"]
    assert recorded_clients(tmp_path, 1) == [f"{prefix}0"]


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


class Personal(FedAvg):
    """Sends client k the weights `models[k]`."""

    def __init__(self, models, **options):
        super().__init__(**options)
        self.models = models

    def configure_train(self, server_round, arrays, config, grid):
        contents = [RecordDict({"arrays": to_record(model)}) for model in self.models]
        return [
            Message(c, node, "train") for c, node in zip(contents, grid.get_node_ids(), strict=True)
        ]


def personal(tmp_path, models, answer, **options):
    inner = Personal(models, min_train_nodes=1)
    recording = Recording(inner, Tape(tmp_path, **options), client_of=lambda node: str(node - 2))
    return recording, one_round(recording, grid_of(len(models), answer))


def test_each_clients_update_is_taken_from_what_it_was_sent(tmp_path):
    models = [{name: value + k for name, value in SENT.items()} for k in (3, 0, 1, 0)]
    echo = lambda client: reply_with({n: v.numpy() for n, v in models[client].items()}, 1)
    recording, _ = personal(tmp_path, models, echo)
    assert recording.norms == dict.fromkeys("0123", 0.0)
    assert recording.unrecorded == []
    opened = {view.latest.update.client: view.latest for view in views(tmp_path, 1, LOCAL)}
    for client, observation in opened.items():
        assert same_params(dict(observation.sent), models[int(client)])
        assert norms([dict(observation.update.delta)]) == [0.0]
    # Those of clients 1 and 3 are one file and one object.
    assert len(list((tmp_path / "rounds" / "0001" / "sent").iterdir())) == 2
    assert recorded_clients(tmp_path, 1) == ["0", "1", "2", "3"]
    [*_, view] = views(tmp_path, 1, LOCAL)
    assert view.cohort[1].sent is view.cohort[3].sent is view.latest.sent
    assert view.cohort[0].sent is not view.latest.sent


def test_sub_models_are_recorded_each_in_its_shape(tmp_path):
    models = [{"w": torch.ones(3), "b": torch.zeros(1)}, {"w": torch.ones(2)}, {"w": torch.ones(2)}]
    step = lambda client: reply_with({n: v.numpy() + 1 for n, v in models[client].items()}, 1)

    class Widest(Personal):
        def aggregate_train(self, server_round, replies):
            return next(iter(replies)).content.array_records["arrays"], None

    recording = Recording(Widest(models), tmp_path, client_of=lambda node: str(node - 2))
    one_round(recording, grid_of(3, step))
    assert recording.norms == {
        "0": pytest.approx(2.0),
        "1": pytest.approx(2**0.5),
        "2": pytest.approx(2**0.5),
    }
    shapes = [tuple(view.latest.update.delta["w"].shape) for view in views(tmp_path, 1, LOCAL)]
    assert shapes == [(3,), (2,), (2,)]


def test_what_clients_that_are_not_recorded_were_sent_is_not_written(tmp_path):
    models = [{name: value + k for name, value in SENT.items()} for k in (0, 0, 1, 2)]
    recording, _ = personal(tmp_path, models, upload, clients=["0", "2"])
    assert len(list((tmp_path / "rounds" / "0001" / "sent").iterdir())) == 1
    assert len(recording.norms) == 4


def test_a_name_of_what_was_sent_is_no_path(tmp_path):
    tape = Tape(tmp_path)
    tape.write_sent(1, SENT)
    tape.write_upload(1, "0", SENT, 5, "weights", sent="../../elsewhere")
    tape.finish(1)
    [view] = views(tmp_path, 1, LOCAL)
    with pytest.raises(BadRecording, match="sent must be the hash of the weights, got ../.."):
        view.latest.sent  # noqa: B018


class Keeping(FedAvg):
    """A strategy that keeps what it gets."""

    def aggregate_train(self, server_round, replies):
        self.replies = list(replies)
        return None, None


ODD = {
    "grown": lambda c: reply_with({"w": np.ones(4), "b": np.ones(1)}, 1),
    "renamed": lambda c: reply_with({"0": np.ones(3)}, 1),
    "bytes": lambda c: reply_with({"0": np.frombuffer(b"tree" * (c + 1), np.uint8)}, 1),
    "nan": lambda c: upload(c, w=np.full(3, np.nan, np.float32)),
    "no-arrays": lambda c: RecordDict({"metrics": MetricRecord({"loss": 1.0})}),
    "text": lambda c: upload(c, w=np.array(["a"] * 3)),
    "two-records": lambda c: RecordDict(
        {"x": ArrayRecord([np.ones(3)]), "y": ArrayRecord([np.ones(3)])}
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_what_cannot_be_recorded_passes_as_it_came_and_is_logged_once(tmp_path, case, caplog):
    recording = Recording(Keeping(), tmp_path, client_of=lambda node: str(node - 2))
    for round_ in (1, 2):
        grid = grid_of(3, lambda c: ODD[case](c) if c else upload(c))
        messages = recording.configure_train(round_, to_record(SENT), ConfigRecord(), grid)
        replies = list(grid.send_and_receive(messages))
        before = [{k: dict(r) for k, r in reply.content.items()} for reply in replies]
        recording.aggregate_train(round_, replies)
        assert all(a is b for a, b in zip(recording.strategy.replies, replies, strict=True))
        for reply, content in zip(replies, before, strict=True):
            odd = reply.metadata.src_node_id != 2
            assert not odd or {k: dict(r) for k, r in reply.content.items()} == content
    assert recording.failures == []
    assert sorted(client for client, _ in recording.unrecorded) == ["1", "2"]
    assert recorded_clients(tmp_path, 2) == ["0"]
    assert len([r for r in caplog.records if "is not on tape" in r.getMessage()]) == 1


def test_of_several_records_the_one_that_was_sent_is_recorded(tmp_path):
    """As in SCAFFOLD: the model, and variates of the same shapes beside it."""

    class Variates(Keeping):
        def configure_train(self, server_round, arrays, config, grid):
            content = RecordDict({"variates": to_record(SENT), "arrays": arrays})
            return [Message(content, node, "train") for node in grid.get_node_ids()]

    def answer(client):
        return RecordDict({"variates": upload(7)["arrays"], **upload(client)})

    recording = Recording(Variates(), tmp_path, client_of=lambda node: str(node - 2))
    one_round(recording, grid_of(3, answer))
    assert recording.unrecorded == []
    for view in views(tmp_path, 1, LOCAL):
        assert float(view.latest.update.delta["w"][0]) == int(view.latest.update.client) - 1
    for reply in recording.strategy.replies:
        assert reply.content["variates"]["w"].numpy()[0] == 7


def test_without_a_number_of_examples_an_upload_is_recorded_without(tmp_path):
    answer = lambda c: RecordDict({"arrays": upload(c)["arrays"]})
    recording = Recording(Keeping(), tmp_path, client_of=lambda node: str(node - 2))
    one_round(recording, grid_of(2, answer))
    assert recorded_clients(tmp_path, 1) == ["0", "1"]
    assert {view.latest.update.num_examples for view in views(tmp_path, 1, LOCAL)} == {None}
