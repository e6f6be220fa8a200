import hashlib
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fedsim.data.cifar import CIFAR10, CIFAR100, cifar10
from fedsim.data.cifar_batches import read_batches
from tests.real_data import cifar_part, present


def test_cifar10_reads_the_lossless_part(tmp_path):
    folder = tmp_path / "lossless"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    for k in range(4):  # two images each, and one to test
        part = pixels[2 * k : 2 * k + 2].reshape(2, 1024, 3)
        Image.fromarray(part).save(folder / f"cifar10_batch_{k}.png")
    Image.fromarray(pixels[8:].reshape(1, 1024, 3)).save(folder / "cifar10_test_first1017.png")
    stored = np.arange(20, dtype=np.uint8) % 10
    np.savez(folder / "labels.npz", y_train=stored, y_test=stored[::-1].copy())
    cifar = cifar10(tmp_path)
    assert cifar.labels.tolist() == list(range(8))
    assert cifar.test_labels.tolist() == [9]
    assert cifar.num_classes == 10
    images = torch.cat([cifar.inputs, cifar.test_inputs])
    for image, channel, row, column in ((0, 0, 0, 0), (3, 1, 4, 31), (7, 2, 30, 9), (8, 0, 17, 2)):
        expected = pixels[image, row, column, channel] / 255
        assert float(images[image, channel, row, column]) == pytest.approx(expected)


def test_cifar10_of_the_shared_part_is_what_the_pictures_hold():
    cifar, twin = cifar10(present("cifar-10")), cifar_part()
    assert (len(cifar.labels), len(cifar.test_labels)) == (4000, 1017)
    assert torch.equal(cifar.inputs, twin.inputs)
    assert torch.equal(cifar.test_inputs, twin.test_inputs)
    assert torch.equal(cifar.labels, twin.labels)
    assert torch.equal(cifar.test_labels, twin.test_labels)
    counts = torch.bincount(cifar.labels)
    assert (int(counts.min()), int(counts.max())) == (366, 422)
    counts = torch.bincount(cifar.test_labels)
    assert (int(counts.min()), int(counts.max())) == (87, 114)


@pytest.mark.twin
@pytest.mark.slow  # torchvision takes longer to import than all of fedsim
@pytest.mark.parametrize("published", [CIFAR10, CIFAR100], ids=lambda it: it.name)
def test_the_published_files_are_those_of_torchvision(published):
    from torchvision import datasets

    twin = getattr(datasets, published.name)
    assert published.folder == twin.base_folder
    assert list(published.train.items()) == [tuple(file) for file in twin.train_list]
    assert list(published.test.items()) == [tuple(file) for file in twin.test_list]


def test_batches_that_are_there_are_read_without_torchvision(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
    (tmp_path / CIFAR10.folder).mkdir()
    digests = {}
    for name, rows in (("data_batch_1", pixels[:2]), ("test_batch", pixels[2:])):
        content = pickle.dumps({"data": rows, "labels": list(range(len(rows)))})
        (tmp_path / CIFAR10.folder / name).write_bytes(content)
        digests[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    train, test = ({name: digests[name]} for name in digests)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    inputs, labels, test_inputs, test_labels = read_batches(
        replace(CIFAR10, train=train, test=test), tmp_path
    )
    read = torch.cat([inputs, test_inputs]).mul(255).round().to(torch.uint8)
    assert np.array_equal(read.reshape(3, 3072).numpy(), pixels)
    assert (labels.tolist(), test_labels.tolist()) == ([0, 1], [0])
    with pytest.raises(ImportError, match="torchvision"):  # which would download the others
        read_batches(CIFAR10, tmp_path)
