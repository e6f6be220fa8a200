import io
import pickle

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedsim.core import wire
from fedsim.core.blocks import Block
from fedsim.core.in_process import HeldArray, LazyArray, RowRecord
from fedsim.core.wire import (
    content_of,
    facts_of,
    from_record,
    held_record,
    metrics_of,
    read_record,
    to_record,
)

STATE = {
    "b": torch.randn(3, 2),
    "a": torch.randn(4, dtype=torch.float64),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
    "transposed": torch.randn(2, 3).T,
}


def test_tensors_survive_the_wire():
    record = to_record(STATE)
    back = from_record(record)
    assert list(back) == list(STATE)
    for name, value in STATE.items():
        assert torch.equal(back[name], value)
        assert back[name].dtype == value.dtype
        assert record[name].data == Array(value.numpy()).data


def test_decoded_tensors_are_the_clients_own():
    record = to_record(STATE)
    from_record(record)["b"].zero_()
    assert torch.equal(from_record(record)["b"], STATE["b"])


@pytest.mark.parametrize("dtype", ["<f4", "<i8", "<f2", "|b1"])
def test_the_fast_decoder_equals_numpys(dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    for array in (values, np.asfortranarray(values), values[::2]):
        decoded = from_record(ArrayRecord({"x": Array(array)}))["x"].numpy()
        assert np.array_equal(decoded, array)


def test_objects_and_pickles_are_not_decoded():
    pickled = Array("object", (1,), "numpy.ndarray", b"\x80\x04K\x01.")
    with pytest.raises((ValueError, TypeError)):
        from_record(ArrayRecord({"x": pickled}))


def test_a_lazy_array_stands_in_for_the_array_itself():
    for name, value in STATE.items():
        original = to_record({name: value})[name]
        lazy = LazyArray(lambda value=value: value.numpy().copy(), original.dtype, original.shape)
        assert np.array_equal(lazy.numpy(), original.numpy())
        assert np.array_equal(np.load(io.BytesIO(lazy.data)), original.numpy())
        assert torch.equal(from_record(ArrayRecord({"x": lazy}))["x"], value)


def test_held_tensors_are_read_without_a_copy_and_handed_out_as_copies():
    record = held_record(STATE)
    assert list(record) == list(STATE)
    for name, value in STATE.items():
        same = read_record(record)[name]
        assert torch.equal(same, value)
        assert same.is_contiguous()  # sums depend on the order
        assert (same.data_ptr() == value.data_ptr()) == value.is_contiguous() or not value.numel()
        assert np.array_equal(record[name].numpy(), value.numpy())
        assert not np.shares_memory(record[name].numpy(), value.numpy())
        assert record[name].data == to_record({name: value.contiguous()})[name].data
    from_record(record)["b"].zero_()
    assert torch.equal(from_record(record)["b"], STATE["b"])


def test_held_tensors_of_another_process_may_be_read_only():
    back = pickle.loads(pickle.dumps(held_record(STATE)))
    values = np.ones(3)
    values.flags.writeable = False
    assert HeldArray(values).tensor().add_(1).tolist() == [2, 2, 2]
    assert all(torch.equal(value, STATE[name]) for name, value in read_record(back).items())


def test_records_are_filled_where_flower_keeps_their_entries(monkeypatch):
    assert type(vars(ArrayRecord())[wire._ENTRIES]) is dict
    monkeypatch.setattr(wire, "_ENTRIES", "elsewhere")
    assert list(held_record(STATE)) == list(STATE)


def test_records_that_are_filled_are_flowers_own():
    arrays = held_record(STATE)
    content = content_of({"a": arrays, "m": metrics_of({"n": 3, "x": 0.5})})
    assert content == RecordDict({"a": arrays, "m": MetricRecord({"n": 3, "x": 0.5})})
    assert facts_of({"round": 2}) == ConfigRecord({"round": 2})
    content["m"]["y"] = 1
    with pytest.raises(TypeError):
        content["m"]["z"] = "text"


def test_what_stands_in_for_flowers_objects_is_sent_as_they_are():
    """Another machine knows Flower's classes alone, and their names come first."""
    state = {name: value.contiguous() for name, value in STATE.items()}
    values, whole = torch.arange(6.0).view(2, 3), to_record(state)
    lazy = LazyArray(values.numpy, "float32", (2, 3))
    block = Block({"w": values}, 2)
    block.stacked["w"].copy_(values)
    row = held_record(block.row(1))
    assert isinstance(row, RowRecord)
    pairs = [
        (lazy, Array(values.numpy())),
        (HeldArray(values.numpy()), Array(values.numpy())),
        (row, to_record({"w": values})),
        (held_record(state), whole),
        (content_of({"a": held_record(state)}), RecordDict({"a": whole})),
    ]
    for ours, flowers in pairs:
        assert ours.deflate() == flowers.deflate()
        assert ours.object_id == flowers.object_id
        assert list(ours.children) == list(flowers.children)
    content = pairs[-1][0]
    assert content.array_records["a"] is content.array_records["a"]
    back = RecordDict.inflate(content.deflate(), {whole.object_id: whole})
    assert back == RecordDict({"a": whole})


def test_records_are_filled_where_another_version_of_flower_keeps_its_entries(monkeypatch):
    monkeypatch.setattr(wire, "_ENTRIES", "_elsewhere")
    test_records_that_are_filled_are_flowers_own()
