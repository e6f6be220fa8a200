import io

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedsim.files import save_tensors
from fedsim.wire import FileArray, copy_record, from_record, to_record

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
        assert np.array_equal(record[name].numpy(), value.numpy())


def test_decoded_tensors_are_the_clients_own():
    record = to_record(STATE)
    from_record(record)["b"].zero_()
    assert torch.equal(from_record(record)["b"], STATE["b"])


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i8", "<f2"])
def test_the_fast_decoder_equals_numpys(dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    for array in (values, np.asfortranarray(values), values[::2]):
        if array.dtype.isnative:
            decoded = from_record(ArrayRecord({"x": Array(array)}))["x"].numpy()
            assert np.array_equal(decoded, Array(array).numpy())


def test_objects_and_pickles_are_not_decoded():
    pickled = Array("object", (1,), "numpy.ndarray", b"\x80\x04K\x01.")
    with pytest.raises((ValueError, TypeError)):
        from_record(ArrayRecord({"x": pickled}))


def test_a_file_array_stands_in_for_the_array_itself(tmp_path):
    save_tensors(tmp_path / "x.safetensors", STATE, {})
    for name, value in STATE.items():
        original = to_record({name: value})[name]
        lazy = FileArray(tmp_path / "x.safetensors", name, original.dtype, original.shape)
        assert np.array_equal(lazy.numpy(), original.numpy())
        assert np.array_equal(np.load(io.BytesIO(lazy.data)), original.numpy())


def test_a_copied_record_can_be_emptied_without_harm():
    content = RecordDict({"arrays": to_record(STATE), "config": ConfigRecord({"x": 1})})
    copy = copy_record(content)
    copy.array_records["arrays"].pop("a")
    copy.config_records["config"]["x"] = 2
    assert "a" in content.array_records["arrays"]
    assert content.config_records["config"]["x"] == 1
