import os
import struct
import sys
from dataclasses import replace

import pyarrow as pa
import pytest
import safetensors.torch
import torch

from fedsim.core import files
from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile, save_tensors, write_whole
from fedsim.core.rows import Leak
from fedsim.core.tables import read_table, write_table
from fedsim.run.ledger import LEAKAGE, leakage_table
from tests.builders import same_params


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "folder" / "x.txt"
    write_whole(path, lambda file: file.write_text("old"))

    def fail(file):
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.txt"]


def test_equal_contents_are_equal_bytes(tmp_path):
    tensors = {"b": torch.ones(2), "a": torch.zeros(3), "é": torch.tensor(1.0)}
    metadata = {name: name * 3 for name in ("round", "client", "upload", "é", "x", "y")}
    paths = [tmp_path / f"{k}.safetensors" for k in range(8)]
    for k, path in enumerate(paths):  # safetensors would write each in an order of its own
        keys = list(metadata)[k % 6 :] + list(metadata)[: k % 6]
        save_tensors(path, tensors, {key: metadata[key] for key in keys})
    assert len({path.read_bytes() for path in paths}) == 1
    assert TensorFile(paths[0]).metadata == {**metadata, "order": '["b", "a", "\\u00e9"]'}
    assert same_params(dict(TensorFile(paths[0])), tensors)


def test_equal_tables_are_equal_bytes_however_they_came_together(tmp_path):
    leak = Leak(
        round=1, client="0", attack="llg", family="label", metric="asr",
        value=0.5, outcome="graded", blind=0.1, seconds=0.0,
    )  # fmt: skip
    leaks = [replace(leak, round=k) for k in range(9)]
    write_table(tmp_path / "whole", leakage_table(leaks))
    parts = pa.concat_tables([leakage_table(leaks[:2]), leakage_table(leaks[2:])])
    write_table(tmp_path / "parts", parts)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()


def test_tensors_come_back_in_order_and_one_by_one(tmp_path):
    state = {"b": torch.ones(2), "a": torch.zeros(1, dtype=torch.int64), "c": torch.tensor(2.0)}
    state["half"] = torch.ones(2, dtype=torch.bfloat16)
    state["shared"] = state["b"]
    state["transposed"] = torch.arange(6).reshape(2, 3).T
    state["expanded"] = torch.tensor([7]).expand(1)  # contiguous, with a stride of 0
    save_tensors(tmp_path / "x.safetensors", state, {"round": 3})
    file = TensorFile(tmp_path / "x.safetensors")
    assert list(file) == list(state)
    assert len(file) == 7
    assert file.metadata["round"] == "3"
    for name, value in state.items():
        assert torch.equal(file[name], value)
        assert file[name].shape == value.shape
    del state["half"]
    save_tensors(tmp_path / "y.safetensors", state, {})
    for name, value in TensorFile(tmp_path / "y.safetensors").items():
        assert torch.equal(value, state[name])
        assert value.shape == state[name].shape
    with pytest.raises(KeyError):
        file["nowhere"]


def every_kind():
    """Return tensors of every dtype that a file may hold, of several shapes and strides."""
    tensors = {}
    for dtype in files.KINDS:
        values = torch.arange(-6, 6).to(torch.float32).to(dtype)
        tensors[f"{dtype}"] = values
        tensors[f"{dtype} by columns"] = values.reshape(3, 4).T
        tensors[f"{dtype} alone"] = values[7].clone()
        tensors[f"{dtype} empty"] = values[:0].reshape(0, 3)
        tensors[f"{dtype} every third"] = values[::3]
    return tensors


@pytest.mark.twin
def test_safetensors_reads_every_kind_as_it_reads_its_own_files(tmp_path):
    tensors = every_kind()
    save_tensors(tmp_path / "own", tensors, {"round": 3, "client": "é"})
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    safetensors.torch.save_file(contiguous, tmp_path / "twin", {"round": "3", "client": "é"})
    own, twin = (safetensors.torch.load_file(tmp_path / name) for name in ("own", "twin"))
    assert own.keys() == twin.keys() == tensors.keys()
    for name, value in tensors.items():
        assert own[name].dtype == twin[name].dtype == value.dtype
        assert own[name].shape == value.shape
        bits = [it.contiguous().reshape(-1).view(torch.uint8) for it in (own[name], value)]
        assert torch.equal(*bits)
    with safetensors.safe_open(tmp_path / "own", "pt") as file:
        assert file.metadata()["client"] == "é"
    head = int.from_bytes((tmp_path / "own").read_bytes()[:8], "little")
    assert head % 8 == 0


@pytest.mark.worked
def test_a_call_takes_few_bytes_in_as_many_buffers_as_fit(tmp_path, monkeypatch):
    calls = []

    def writev(descriptor, buffers, writev=os.writev):
        calls.append([buffer.nbytes for buffer in buffers])
        return writev(descriptor, buffers)

    monkeypatch.setattr(files, "PIECE", 4)
    monkeypatch.setattr(os, "writev", writev)
    with (tmp_path / "x").open("wb", buffering=0) as file:
        buffers = [memoryview(data) for data in (b"ab", b"", b"c", b"defghijklm", b"n")]
        files.write_all(file.fileno(), buffers)
    assert calls == [[2, 1], [4], [4], [2, 1]]
    assert (tmp_path / "x").read_bytes() == b"abcdefghijklmn"


@pytest.mark.twin
@pytest.mark.parametrize("most", [1, 7, 8, 1000])
def test_a_call_that_takes_a_part_is_followed_by_others(tmp_path, monkeypatch, most):
    tensors = every_kind()
    save_tensors(tmp_path / "whole", tensors, {"round": 3})
    calls = []

    def writev(descriptor, buffers, writev=os.writev):
        calls.append(len(buffers))
        return writev(descriptor, [b"".join(buffers)[:most]])

    monkeypatch.setattr(files, "MOST_BUFFERS", 3)
    monkeypatch.setattr(os, "writev", writev)
    save_tensors(tmp_path / "parts", tensors, {"round": 3})
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert len(calls) > 1
    assert max(calls) <= 3


@pytest.mark.worked
def test_a_big_endian_machine_turns_the_bytes_of_each_number(tmp_path, monkeypatch):
    tensors = {
        "a": torch.tensor([1, 2], dtype=torch.int32),
        "b": torch.tensor([1 + 2j], dtype=torch.complex64),
        "c": torch.tensor([3], dtype=torch.uint8),
    }
    monkeypatch.setattr(sys, "byteorder", "big")
    save_tensors(tmp_path / "x", tensors, {})
    content = (tmp_path / "x").read_bytes()
    values = content[8 + int.from_bytes(content[:8], "little") :]
    assert values == struct.pack(">ff", 1, 2) + struct.pack(">ii", 1, 2) + b"\3"


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(BadRecording, match=r"x\.safetensors: must be as it was written, .* none"):
        TensorFile(tmp_path / "x.safetensors").metadata  # noqa: B018
    with pytest.raises(BadRecording, match="the file is missing"):
        list(TensorFile(tmp_path / "z.safetensors"))


def test_a_table_survives_and_a_foreign_one_is_named(tmp_path):
    rows = [
        Leak(
            round=1,
            client="0",
            attack="llg",
            family="label",
            metric="asr",
            value=0.5,
            outcome="graded",
            blind=None,
            seconds=0.1,
        ),
        Leak(
            round=1,
            client=None,
            attack="x",
            family="y",
            metric="z",
            value=None,
            outcome="no truth",
            blind=0.0,
            seconds=0.0,
        ),
    ]
    write_table(tmp_path / "l.parquet", leakage_table(rows))
    assert read_table(tmp_path / "l.parquet", LEAKAGE).to_pylist()[1]["client"] is None
    write_table(tmp_path / "m.parquet", leakage_table(rows).drop_columns(["blind"]))
    with pytest.raises(BadRecording, match=r"m\.parquet: columns must have"):
        read_table(tmp_path / "m.parquet", LEAKAGE)
    (tmp_path / "n.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(BadRecording, match=r"n\.parquet: must be as it was written"):
        read_table(tmp_path / "n.parquet", LEAKAGE)


@pytest.mark.parametrize("order", ["[" * 100_000, '["a", "a", "b"]', '{"a": 1}', "3", '[1, "a"]'])
def test_an_order_that_nobody_wrote_is_none(order, tmp_path):
    save_tensors(tmp_path / "x", {"a": torch.ones(1), "b": torch.ones(1)}, {})
    file = TensorFile(tmp_path / "x")
    file.__dict__["metadata"] = {"order": order}
    assert sorted(file) == ["a", "b"]
    assert len(dict(file)) == len(file)


def test_what_a_file_says_of_itself_is_cut_in_a_sentence():
    sentence = str(BadRecording(f"x: must be of round 1, got {'0' * 5000}; and so on"))
    assert len(sentence) < 1000
    assert sentence.startswith("x: must be of round 1, got 000")
    assert sentence.endswith("000; and so on")
