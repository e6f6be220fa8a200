import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsim import data
from fedsim.config import Data
from fedsim.core.catalog import Entry
from fedsim.core.errors import ConfigError
from tests.builders import toy_dataset


def test_attributes_survive_the_limit(monkeypatch):
    sex = data.Attribute((1, 3), ("f", "m"), torch.eye(2))

    def toy(root: Path) -> data.Dataset:
        return replace(toy_dataset(root), attributes={"sex": sex})

    monkeypatch.setattr(sys.modules["fedsim.data.load"], "DATASETS", {"toy": Entry("toy", toy)})
    limited = data.load(Data(name="toy", limit=40), seed=0)
    assert len(limited.labels) == 40
    assert limited.attributes == {"sex": sex}


def test_every_data_set_says_in_one_line_what_it_is():
    for name, entry in data.DATASETS.items():
        assert entry.summary.endswith("."), name
        assert 20 < len(entry.summary) < 100, name


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("heart-disease", "processed.cleveland.data", "x;y\n"),
        ("heart-disease", "processed.cleveland.data", None),
        ("uci-har", "uci_har_train_21subjects.npz", ""),
        ("uci-har", "uci_har_train_21subjects.npz", "no archive"),
        ("olivetti", "olivettifaces.mat", ""),
        ("olivetti", "olivettifaces.mat", "no matrix " * 99),
        ("pneumonia-mnist", "pneumoniamnist.npz", "PK\x03\x04 cut short"),
        ("cifar10", "lossless/cifar10_batch_0.png", "no picture"),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_one_sentence(name, file, content, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=rf"data.root: '{name}' must be readable in .*\(.+\)"):
        data.load(Data(name=name, root=str(tmp_path)), seed=0)


def test_an_archive_that_lacks_an_array_is_one_sentence(tmp_path):
    np.savez(tmp_path / "pneumoniamnist.npz", train_images=np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(ConfigError, match="must be readable .*train_labels is not a file"):
        data.load(Data(name="pneumonia-mnist", root=str(tmp_path)), seed=0)


def test_an_archive_with_a_broken_stream_is_one_sentence(tmp_path):
    path = tmp_path / "pneumoniamnist.npz"
    np.savez_compressed(path, train_images=np.zeros((2, 28, 28), np.uint8))
    content = bytearray(path.read_bytes())
    start = 30 + content[26] + 256 * content[27] + content[28] + 256 * content[29]
    content[start] = 0b111  # the first block says that it is of a type that does not exist
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="must be readable .*invalid block type"):
        data.load(Data(name="pneumonia-mnist", root=str(tmp_path)), seed=0)
