import random
import zlib
from dataclasses import replace

import pyarrow as pa
import pytest
import torch

from fedsim.core import seals
from fedsim.core.errors import BadRecording
from fedsim.core.files import MOST_HEAD, TensorFile, save_tensors
from fedsim.core.listing import compare, files_below, read_list, write_list
from fedsim.core.rows import Leak
from fedsim.core.tables import read_table, write_table
from fedsim.run.ledger import LEAKAGE, leakage_table, read_rows

ROW = Leak(
    round=1, client="0", attack="llg", family="label", metric="asr", value=0.5, blind=None,
    outcome="graded", seconds=0.1,
)  # fmt: skip


def tensors(path):
    save_tensors(path, {"a": torch.arange(5), "b": torch.ones(2, 3)}, {"round": 1, "ü": "é\n"})


def table(path):
    write_table(path, leakage_table([ROW] * 3))


def listing(path):
    write_list(path, {"a/b": "0123abcd"})


def text(path):
    path.write_bytes(seals.sealed(f"# {seals.UNSEALED}\nseed = 3\n".encode()))


FILES = {
    "x.safetensors": (tensors, lambda path: dict(TensorFile(path))),
    "x.parquet": (table, lambda path: read_table(path, LEAKAGE)),
    "files.json": (listing, read_list),
    "config.toml": (text, seals.read),
}


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_and_every_cut_is_noticed(name, tmp_path):
    write, read = FILES[name]
    path = tmp_path / name
    write(path)
    read(path)
    data = path.read_bytes()
    for place in range(0, 8 * len(data), 1 if len(data) < 100 else 7):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(BadRecording, match=r"must be as it was written, by its checksum"):
            read(path)
    for damaged in (*(data[:end] for end in range(0, len(data), 5)), data + b"\0", data + data):
        path.write_bytes(damaged)
        with pytest.raises(BadRecording, match=name):
            read(path)
    path.unlink()
    with pytest.raises(BadRecording, match="the file is missing"):
        read(path)
    path.mkdir()
    with pytest.raises(BadRecording, match="the file is missing"):
        read(path)


@pytest.mark.parametrize("name", FILES)
def test_equal_contents_are_equal_bytes(name, tmp_path):
    write, _ = FILES[name]
    path = tmp_path / name
    contents = set()
    for _ in range(8):
        write(path)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_header_larger_than_any_recording_has_is_not_parsed(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {}, {"x": "y" * MOST_HEAD})
    with pytest.raises(BadRecording, match="header of a safetensors file must have at most 64 MiB"):
        list(TensorFile(path))


def test_a_small_file_is_not_read_beyond_its_limit(tmp_path):
    (tmp_path / "x").write_bytes(b"x" * 100)
    with pytest.raises(BadRecording, match="must have at most 99 bytes"):
        seals.read(tmp_path / "x", 99)


def test_sizes_and_types_of_a_table_are_checked_before_its_values_are_read(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    alike = leakage_table([ROW] * 200_000)
    write_table(path, alike)
    with pytest.raises(BadRecording, match="must be at most 8 for each byte of the file"):
        read_table(path, LEAKAGE)
    monkeypatch.setattr("fedsim.core.tables._MOST_TEXT", 10_000)
    write_table(path, leakage_table([replace(ROW, client="c" * 500)] * 20))
    with pytest.raises(BadRecording, match="texts of a table must take at most 1 GiB together"):
        read_table(path, LEAKAGE)
    write_table(path, leakage_table([replace(ROW, metric=None)]))
    with pytest.raises(BadRecording, match="cells of a table must be full, .* 1 empty in metric"):
        read_rows(path, LEAKAGE)
    wide = LEAKAGE.set(0, LEAKAGE.field(0).with_type(pa.int64()))
    write_table(path, leakage_table([ROW]).cast(wide))
    with pytest.raises(BadRecording, match="columns must have .* got round int64"):
        read_table(path, LEAKAGE)


def test_a_list_names_the_file_that_differs(tmp_path):
    tensors(tmp_path / "a.safetensors")
    table(tmp_path / "b.parquet")
    (tmp_path / ".hidden").write_text("")
    files = files_below(tmp_path, ["."])
    assert set(files) == {"a.safetensors", "b.parquet"}
    write_list(tmp_path / "files.json", files)
    listed = read_list(tmp_path / "files.json")
    compare(tmp_path, listed, files_below(tmp_path, ["."]))
    for change, what in (
        ({"a.safetensors": "00000000"}, "other contents at a.safetensors"),
        ({"c": "00000000"}, "none at c"),
    ):
        with pytest.raises(BadRecording, match=what):
            compare(tmp_path, {**listed, **change}, files)
    with pytest.raises(BadRecording, match=r"another file at b\.parquet"):
        compare(tmp_path, {"a.safetensors": listed["a.safetensors"]}, files)
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(BadRecording, match=r"junk: must be as it was written"):
        files_below(tmp_path, ["."])
    for wrong in (b"[]", b"{}", b'{"files": {"a": 1}}', b"[" * 3000, b'{"files": 3}'):
        data = seals.sealed(b'{"checksum": "' + seals.UNSEALED.encode() + b'"} ' + wrong)
        (tmp_path / "files.json").write_bytes(data)
        with pytest.raises(BadRecording, match="must be a list of files"):
            read_list(tmp_path / "files.json")


@pytest.mark.parametrize("length", [0, 1, 7, 1000, 2**20 + 3])
def test_a_checksum_of_two_parts_is_that_of_the_whole(length):
    first, second = b"head", random.Random(length).randbytes(length)
    whole = seals.combined(zlib.crc32(first), zlib.crc32(second), length)
    assert whole == zlib.crc32(first + second)


def test_a_checksum_of_two_parts_is_that_of_the_whole_where_the_second_is_long():
    block, count, first = bytes(2**20), 2**9 + 2**8, zlib.crc32(b"head")
    second, whole = 0, first
    for _ in range(count):  # 768 MiB
        second, whole = zlib.crc32(block, second), zlib.crc32(block, whole)
    assert seals.combined(first, second, count * 2**20) == whole
