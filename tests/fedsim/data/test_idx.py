"""IDX files: by hand, against torchvision's reader, and damaged."""

import gzip
import struct
import sys

import numpy as np
import pytest
import torch

from fedsim.data.idx import read_idx
from fedsim.data.mnist import mnist

PIXELS = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
HEAD = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28)
WHOLE = HEAD + PIXELS.tobytes()


@pytest.mark.worked
@pytest.mark.parametrize("is_packed", [False, True])
def test_images_and_labels_by_hand(tmp_path, is_packed):
    write = lambda name, content: (
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        if is_packed
        else (tmp_path / name).write_bytes(content)
    )
    write("images", WHOLE)
    write("labels", bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 0, 9]))
    assert np.array_equal(read_idx(tmp_path / "images", (28, 28)), PIXELS)
    assert read_idx(tmp_path / "labels", ()).tolist() == [7, 0, 9]


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "the head $"),
        (WHOLE[:12], "the head 00000803 00000002 0000001c$"),
        (b"\0\0\x0d\x03" + WHOLE[4:], "the head 00000d03 "),  # floats
        (b"\0\0\x08\x01" + WHOLE[4:], "the head 00000801 "),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 27) + WHOLE[16:], "0000001b$"),
        (WHOLE[:-1], "1567 for 1568"),
        (WHOLE + b"\0", "more"),
        (
            struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 28, 28) + WHOLE[16:],
            f" for {(2**32 - 1) * 28 * 28}",
        ),
    ],
    ids=["empty", "cut head", "floats", "labels", "width", "short", "long", "huge"],
)
def test_a_damaged_file_is_one_sentence(tmp_path, is_packed, content, got):
    name = "images.gz" if is_packed else "images"
    (tmp_path / name).write_bytes(gzip.compress(content) if is_packed else content)
    rule = "must hold as many bytes as its magic number and sizes state, got "
    with pytest.raises(ValueError, match=f"^{name}: {rule}.*{got}"):
        read_idx(tmp_path / "images", (28, 28))


def test_a_missing_file_and_one_that_is_no_gzip_are_refused(tmp_path):
    with pytest.raises(OSError, match="images"):
        read_idx(tmp_path / "images", (28, 28))
    (tmp_path / "images.gz").write_bytes(WHOLE)
    with pytest.raises(OSError, match="gzip"):
        read_idx(tmp_path / "images", (28, 28))


@pytest.mark.twin
@pytest.mark.slow  # torchvision takes longer to import than all of fedsim
def test_torchvision_reads_the_same(tmp_path):
    from torchvision.datasets.mnist import read_image_file, read_label_file

    (tmp_path / "images").write_bytes(WHOLE)
    assert torch.equal(
        read_image_file(str(tmp_path / "images")),
        torch.from_numpy(read_idx(tmp_path / "images", (28, 28)).copy()),
    )
    (tmp_path / "labels").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 0, 9]))
    read = read_idx(tmp_path / "labels", ())
    assert read_label_file(str(tmp_path / "labels")).tolist() == read.tolist()


def test_files_that_are_there_are_read_without_torchvision(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="torchvision"):  # which would download them
        mnist(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for half in ("train", "t10k"):
        (raw / f"{half}-images-idx3-ubyte").write_bytes(WHOLE)
        labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9])
        (raw / f"{half}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    dataset = mnist(tmp_path)
    assert torch.equal(dataset.inputs, torch.from_numpy(PIXELS).unsqueeze(1) / 255)
    assert dataset.test_labels.tolist() == [7, 9]
