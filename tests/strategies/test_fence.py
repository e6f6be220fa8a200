import os
import re
import weakref

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, Krum

import strategies.uploads
from fedsim.core.blocks import Block
from fedsim.core.errors import RunStopped
from fedsim.core.types import LocalTraining
from fedsim.core.wire import ARRAYS, METRICS, NUM_EXAMPLES, held_record, to_record
from strategies import Fence, Recording, sampling
from strategies.tape import recorded_clients
from strategies.tape_views import views
from strategies.uploads import Passed, decoded
from tests.builders import grid_of, reply_with

SENT = {"w": torch.ones(3), "b": torch.zeros(1)}
HONEST = (0 * 1 + 2 * 3) / 4  # the mean of clients 0 and 2


def upload(client, **changes):
    arrays = {"w": np.full(3, client, np.float32), "b": np.ones(1, np.float32)} | changes
    return reply_with({k: v for k, v in arrays.items() if v is not None}, client + 1)


def one_round(fence, grid, round_=1, sent=SENT):
    with sampling(0, round_):  # Krum takes the first of equal ones
        messages = fence.configure_train(round_, to_record(sent), ConfigRecord(), grid)
    return fence.aggregate_train(round_, grid.send_and_receive(messages))


def fenced(tmp_path, answer, inner=FedAvg, **options):
    recording = Recording(inner(min_train_nodes=1), tmp_path, client_of=lambda node: str(node - 2))
    arrays, metrics = one_round(Fence(recording, **options), grid_of(3, answer))
    return recording, arrays, metrics


def two_arrays(client):
    content = upload(client)
    content["other"] = content["arrays"]
    content["more"] = ArrayRecord()
    del content["arrays"]
    return content


def raw(client, data):
    content = upload(client)
    arrays = {"w": Array("float32", (3,), "numpy.ndarray", data), "b": Array(np.ones(1))}
    content["arrays"] = ArrayRecord(arrays)
    return content


def metric(client, value, **others):
    content = upload(client)
    content["metrics"] = MetricRecord({NUM_EXAMPLES: value} | others)
    return content


def broken(client, **fields):
    content = upload(client)
    for name, value in fields.items():
        content["arrays"]["w"].__dict__[name] = value
    return content


def of(value):
    return np.full(3, value, np.float32)


FAULTS = {
    "error": (lambda c: ValueError("no more memory"), "no more memory"),
    "nothing": (lambda c: None, "no reply in time"),
    "long": (lambda c: ValueError("x" * 10**6), "^x{299}…$"),
    "surrogate": (lambda c: ValueError("half \ud800 \x1b[2J \x00"), r"^half \? \?\[2J \?$"),
    "nan": (lambda c: upload(c, w=np.array([1, np.nan, 1], np.float32)), "w: must be finite"),
    "infinite": (lambda c: upload(c, b=np.array([np.inf], np.float32)), "b: must be finite"),
    "3e38": (lambda c: upload(c, w=of(3e38)), "update: must have a norm of at most 1e[+]18"),
    "1e19": (lambda c: upload(c, w=of(1e19)), "update: must have a norm of at most 1e[+]18"),
    "too-wide": (lambda c: upload(c, w=np.full(3, 1e300)), "w: must be finite"),
    "complex": (lambda c: upload(c, w=np.ones(3, np.complex64)), "w: must be real"),
    "text": (lambda c: upload(c, w=np.array(["a"] * 3)), "must be numeric NumPy arrays"),
    "dates": (lambda c: upload(c, w=np.zeros(3, "M8[s]")), "must be numeric NumPy arrays"),
    "shape": (lambda c: upload(c, w=np.ones(4, np.float32)), r"w: shape must be \(3,\), got"),
    "missing": (lambda c: upload(c, b=None), "missing b"),
    "unknown": (lambda c: upload(c, z=np.ones(1)), "unknown z"),
    "nameless": (lambda c: upload(c, **{"": np.zeros(0)}), "unknown ''"),
    "half-name": (lambda c: upload(c, **{"\ud800": np.zeros(0)}), "unknown [?]"),
    "records": (two_arrays, "must hold one ArrayRecord, got 2"),
    "empty": (lambda c: RecordDict(), "must hold one ArrayRecord, got 0"),
    "pickle": (lambda c: raw(c, b"\x80\x04K\x01."), "arrays: must be numeric NumPy arrays"),
    "zip": (lambda c: raw(c, b"PK\x03\x04"), "arrays: must be numeric NumPy arrays"),
    "header": (lambda c: raw(c, b"\x93NUMPY\x01\x00\x06\x00{((((\n"), "must be numeric NumPy"),
    "no-bytes": (lambda c: broken(c, data=7), "content: must be readable"),
    "metrics": (lambda c: RecordDict({ARRAYS: upload(c)[ARRAYS]}), "one MetricRecord, got 0"),
    "weight": (lambda c: metric(c, -1), "num-examples: must be a number ≥ 0, got -1"),
    "weight-nan": (lambda c: metric(c, float("nan")), "num-examples: must be"),
    "weight-list": (lambda c: metric(c, [1, 2]), "num-examples: must be"),
    "weight-1e308": (lambda c: metric(c, 1e308), "num-examples: must be at most 1,000,000,000"),
    "weight-big": (lambda c: metric(c, 10**9 + 1), "num-examples: must be at most 1,000,000,000"),
}


@pytest.mark.parametrize("inner", [FedAvg, FedAdam, Krum])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_one_client_sends_is_its_own_failure_and_the_round_goes_on(tmp_path, fault, inner):
    answer, reason = FAULTS[fault]
    recording, arrays, _ = fenced(tmp_path, lambda c: answer(c) if c == 1 else upload(c), inner)
    [(client, stated)] = recording.failures
    assert client == "1"
    assert re.search(reason, stated), stated
    stated.encode()
    assert recorded_clients(tmp_path, 1) == ["0", "2"]
    if inner is FedAvg:
        assert arrays["w"].numpy() == pytest.approx(np.full(3, HONEST))
    assert all(np.isfinite(array.numpy()).all() for array in arrays.values())


HARMLESS = {
    "loss": lambda c: metric(c, c + 1, loss=float("nan"), more=[1.0, 2.0]),
    "other-key": lambda c: RecordDict({"mine": upload(c)[ARRAYS], "m": upload(c)[METRICS]}),
    "config": lambda c: RecordDict({**upload(c), "c": ConfigRecord({"x": "y"})}),
    "more-arrays": lambda c: RecordDict({**upload(c), "z": ArrayRecord([np.ones(2)])}),
    "no-dtype": lambda c: broken(c, dtype=None, shape="x"),
    "float64": lambda c: upload(c, w=np.full(3, c, np.float64)),
    "integers": lambda c: upload(c, w=np.full(3, c)),
    "order": lambda c: reply_with(
        {"b": np.ones(1, np.float32), "w": np.full(3, c, np.float32)}, c + 1
    ),
}


@pytest.mark.parametrize("inner", [FedAvg, FedAdam, Krum])
@pytest.mark.parametrize("change", HARMLESS)
def test_what_a_strategy_does_not_need_is_left_out_and_dtypes_are_the_models(
    tmp_path, change, inner
):
    answer = HARMLESS[change]
    recording, arrays, metrics = fenced(
        tmp_path / "changed", lambda c: answer(c) if c == 1 else upload(c), inner
    )
    _, plain, _ = fenced(tmp_path / "plain", upload, inner)
    assert recording.failures == []
    assert dict(metrics) == {}
    assert {name: array.data for name, array in arrays.items()} == {
        name: array.data for name, array in plain.items()
    }


def test_a_cast_is_logged_once(tmp_path, caplog):
    fence = Fence(FedAvg())
    grid = grid_of(3, lambda c: upload(c, w=np.full(3, c, np.float64)))
    for round_ in (1, 2):
        one_round(fence, grid, round_)
    said = [r.getMessage() for r in caplog.records if "cast" in r.getMessage()]
    assert said == [
        "a client uploads w as torch.float64: cast to the model's torch.float32; not logged again"
    ]


def test_metrics_that_a_strategy_needs_are_asked_of_every_client(tmp_path):
    answer = lambda c: metric(c, c + 1, loss=0.5) if c else metric(c, c + 1)
    recording, _, metrics = fenced(tmp_path, answer, metrics=["loss"])
    assert recording.failures == [("0", "loss: must be a finite number, got None")]
    assert dict(metrics) == {"loss": 0.5}


def test_two_large_uploads_do_not_end_the_round(tmp_path):
    sign = {1: -3e38, 2: 3e38}
    recording, arrays, _ = fenced(
        tmp_path, lambda c: upload(c, w=of(sign[c])) if c else upload(c), FedAdam
    )
    assert sorted(client for client, _ in recording.failures) == ["1", "2"]
    assert np.isfinite(arrays["w"].numpy()).all()


def test_a_constant_of_infinity_is_no_fault(tmp_path):
    sent = {"w": torch.ones(3), "mask": torch.tensor([0.0, -torch.inf])}
    mask = sent["mask"].numpy()
    recording = Recording(FedAvg(), tmp_path, client_of=lambda node: str(node - 2))

    def answer(client):
        other = np.array([-np.inf, 0], np.float32)
        masks = {0: mask, 1: other, 2: mask}
        return reply_with({"w": of(client), "mask": masks[client]}, 1)

    arrays, _ = one_round(Fence(recording), grid_of(3, answer), sent=sent)
    assert recording.failures == [("1", "mask: must be finite, got NaN or infinity")]
    assert recording.norms == {"0": pytest.approx(3**0.5), "2": pytest.approx(3**0.5)}
    assert np.array_equal(arrays["mask"].numpy(), mask)
    for view in views(tmp_path, 1, LocalTraining(lr=0.1, batch_size=4)):
        assert torch.equal(view.latest.update.delta["mask"], torch.zeros(2))


@pytest.mark.parametrize(("memory", "kept"), [(0, 1), (32, 3), (10**6, 3)])
def test_uploads_beyond_the_memory_leave_it(tmp_path, memory, kept):
    values, alive = [], []

    class Counting(FedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            alive.append(sum(value() is not None for value in values))
            return super().aggregate_train(server_round, replies)

    def answer(client):
        content = upload(client)
        state = {"w": torch.full((3,), float(client)), "b": torch.ones(1)}
        content["arrays"] = held_record(state)
        values.append(weakref.ref(content["arrays"]["w"].values))
        return content

    recording = Recording(Counting(min_train_nodes=1), tmp_path, memory=memory)
    arrays, _ = one_round(Fence(recording), grid_of(3, answer))
    assert np.array_equal(arrays["w"].numpy(), np.full(3, 8 / 6, np.float32))
    assert alive[0] <= kept  # the last one may still be at hand


ROWS = {
    "as-sent": SENT,
    "turned": {"b": SENT["b"], "w": SENT["w"]},
    "wide": {"w": SENT["w"].double(), "b": SENT["b"]},
    "missing": {"w": SENT["w"]},
    "whole": {"w": SENT["w"], "b": torch.zeros(1, dtype=torch.int64)},
    "other-shape": {"w": torch.ones(4), "b": SENT["b"]},
}


@pytest.mark.twin
@pytest.mark.parametrize("kind", ["weights", "gradient"])
@pytest.mark.parametrize("form", ROWS)
def test_rows_of_a_block_pass_as_each_by_itself(tmp_path, form, kind):
    block = Block(ROWS[form], 4)
    for name, rows in block.stacked.items():
        rows.copy_(torch.linspace(-2, 3, rows.numel()).view(rows.shape))
        if name == "w":
            rows[1, 0], rows[3] = torch.nan, 1e19
    results = []
    for name, state in (("rows", block.row), ("plain", lambda k: dict(block.row(k)))):
        strategy = FedAvg(min_train_nodes=1)
        recording = Recording(strategy, tmp_path / name, client_of=str, upload=kind)
        metrics = MetricRecord({NUM_EXAMPLES: 2})
        contents = [RecordDict({ARRAYS: held_record(state(k)), METRICS: metrics}) for k in range(4)]
        arrays, _ = one_round(Fence(recording, upload=kind), grid_of(4, contents.__getitem__))
        mean = {} if arrays is None else {n: array.numpy().tobytes() for n, array in arrays.items()}
        files = (tmp_path / name / "rounds").rglob("*.safetensors")
        data = {path.name: path.read_bytes() for path in files}
        results.append((recording.norms, recording.failures, mean, data))
    assert results[0] == results[1]
    assert len(results[0][0]) == (0 if form in {"missing", "other-shape"} else 2)


@pytest.mark.parametrize("kind", ["weights", "gradient"])
def test_rows_of_numbers_and_of_nothing_have_the_norm_of_each_by_itself(kind):
    sent = {"w": torch.ones(2, 3), "s": torch.tensor(2.0), "n": torch.tensor(1)}
    sent |= {"e": torch.zeros(0, 3), "d": torch.tensor(0.5, dtype=torch.float64)}
    block = Block(sent, 3)
    for rows in block.stacked.values():
        rows.copy_(torch.arange(rows.numel()).view(rows.shape))
    for row in map(block.row, range(3)):
        together, one = (decoded(held_record(it), sent, kind) for it in (row, dict(row)))
        assert together[0] is row
        assert together[1] == pytest.approx(one[1], rel=1e-6)


@pytest.mark.parametrize("name", ["w", "z"])
def test_a_gibibyte_is_refused_before_it_is_decoded(tmp_path, name, monkeypatch):
    read = []
    decode = strategies.uploads.read_record
    monkeypatch.setattr(strategies.uploads, "read_record", lambda r: (read.append(r), decode(r))[1])

    def huge(client):
        content = upload(client)
        content["arrays"][name] = Array("float32", (3,), "numpy.ndarray", bytes(2**30))
        return content

    recording, arrays, _ = fenced(tmp_path, lambda c: huge(c) if c == 1 else upload(c))
    assert recording.failures == [
        ("1", f"{name}: must hold at most {4144 if name == 'w' else 4096} bytes, got {2**30}")
    ]
    read = [record for record in read if type(record) is not Passed]
    assert len(read) == 2  # the fence hands on what it decoded
    assert arrays["w"].numpy() == pytest.approx(np.full(3, HONEST))


class Returning(FedAvg):
    """A strategy whose aggregate is given."""

    def __init__(self, result):
        super().__init__(min_train_nodes=1)
        self.result = result

    def aggregate_train(self, server_round, replies):
        list(replies)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


def model(**changes):
    arrays = {"w": of(1), "b": np.ones(1, np.float32)} | changes
    record = {name: Array(value) for name, value in arrays.items() if value is not None}
    return ArrayRecord(record), None


AGGREGATES = {
    "nan": (model(w=np.array([1, np.nan, 1])), "w: must be finite, got NaN or infinity"),
    "too-wide": (model(w=np.full(3, 1e300)), "w: must be finite, got NaN or infinity"),
    "missing": (model(b=None), "got missing b"),
    "unknown": (model(z=of(1)), "got unknown z"),
    "shape": (model(w=np.ones(2)), r"w: shape must be \(3,\), got \(2,\)"),
    "complex": (model(w=np.ones(3, complex)), "got w of torch.complex128"),
    "text": (model(w=np.array(["a"] * 3)), "got arrays that are not numbers"),
    "dict": (({"w": 1}, None), "got a dict"),
    "none": (None, r"Returning cannot aggregate \(TypeError: cannot unpack"),
    "error": (IndexError("out of range"), r"Returning cannot aggregate \(IndexError: out of range"),
}


@pytest.mark.parametrize("case", AGGREGATES)
def test_an_aggregate_that_is_no_model_names_the_strategy(tmp_path, case):
    result, reason = AGGREGATES[case]
    recording = Recording(Returning(result), tmp_path)
    with pytest.raises(
        RunStopped, match=rf"^round 1: (the aggregate of )?Returning .*{reason}|{reason}"
    ):
        one_round(Fence(recording), grid_of(3, upload))


def test_a_strategy_that_cannot_choose_clients_is_named():
    class Choosing(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):  # pyright: ignore
            return iter([None])  # pyright: ignore

    with pytest.raises(RunStopped, match=r"^round 1: Choosing cannot choose clients \(TypeError"):
        one_round(Fence(Choosing()), grid_of(3, upload))


def test_answers_to_nothing_and_second_answers_do_not_count():
    fence, grid = Fence(FedAvg(min_train_nodes=1)), grid_of(3, upload)
    messages = list(fence.configure_train(1, to_record(SENT), ConfigRecord(), grid))
    replies = list(grid.send_and_receive(messages))
    stranger = Message(upload(9), 99, "train")
    stranger.metadata.__dict__["_src_node_id"] = 77
    again = Message(upload(8), reply_to=messages[0])
    arrays, _ = fence.aggregate_train(1, [None, stranger, *replies, again, "reply"])
    assert arrays["w"].numpy() == pytest.approx(np.full(3, 8 / 6))


def leave(message, context):
    os._exit(3)


def stop(message, context):
    raise SystemExit("enough")


def nothing(message, context):
    return None


def other(message, context):
    reply = Message(upload(1), reply_to=message)
    reply.metadata.__dict__["_reply_to_message_id"] = "1"  # client 0's
    context.__dict__["node_id"] = 2
    return reply


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (leave, "SystemExit: the client wants to end its process with status 3"),
        (stop, "SystemExit: enough"),
        (nothing, "TypeError: a ClientApp must return a Message, got NoneType"),
        (other, None),
    ],
)
def test_a_client_of_this_process_ends_nobody_but_itself(train, reason, monkeypatch, tmp_path):
    from fedsim.federation import inline
    from fedsim.federation.grid import SimulationGrid

    def app(message, context):
        client = message.metadata.dst_node_id - 2
        return train(message, context) if client == 1 else Message(upload(client), reply_to=message)

    monkeypatch.setattr(inline, "app", app)
    recording = Recording(FedAvg(), tmp_path, client_of=lambda node: str(node - 2))
    grid = SimulationGrid(3, inline.inline, tmp_path / "truth")
    before = os._exit
    one_round(Fence(recording), grid)
    assert os._exit is before
    assert [client for client, _ in recording.failures] == (["1"] if reason else [])
    assert all(text.startswith(str(reason)) for _, text in recording.failures)
    assert sorted(recording.norms) == (["0", "2"] if reason else ["0", "1", "2"])
    assert grid.client_states() == {}
