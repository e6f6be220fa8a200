import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from fedsim import data
from tests import real_data


def there(name: str) -> Path:
    root = real_data.SHARED / name
    if not root.exists():
        pytest.skip(f"no {name} in {real_data.SHARED}")
    return root


def test_digits_are_the_ones_of_scikit_learn():
    from sklearn.datasets import load_digits

    ours, theirs = data.digits(Path()), load_digits()
    assert len(ours.labels) + len(ours.test_labels) == len(theirs.target) == 1797
    test = np.arange(1797) % 5 == 4
    assert np.array_equal(ours.test_inputs.numpy()[:, 0] * 16, theirs.images[test])
    assert np.array_equal(ours.labels.numpy(), theirs.target[~test])


def test_mnist_knows_its_writers():
    mnist = data.mnist(real_data.unpacked(there("mnist")))
    assert mnist.inputs.shape == (60_000, 1, 28, 28)
    assert float(mnist.inputs.max()) == 1
    assert len(np.unique(mnist.columns["writer"])) == 539
    path = there("mnist") / "QMNIST/raw/qmnist-train-labels-idx2-int.gz"
    raw = gzip.decompress(path.read_bytes())
    digits = np.frombuffer(raw, ">i4", offset=12).reshape(-1, 8)[:, 0]
    assert np.array_equal(digits, mnist.labels)


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
    cifar = data.cifar10(tmp_path)
    assert cifar.labels.tolist() == list(range(8))
    assert cifar.test_labels.tolist() == [9]
    assert cifar.num_classes == 10
    both = torch.cat([cifar.inputs, cifar.test_inputs])
    for image, channel, row, column in ((0, 0, 0, 0), (3, 1, 4, 31), (7, 2, 30, 9), (8, 0, 17, 2)):
        expected = pixels[image, row, column, channel] / 255
        assert float(both[image, channel, row, column]) == pytest.approx(expected)


def test_cifar10_of_the_shared_part_is_what_the_pictures_hold():
    cifar, twin = data.cifar10(there("cifar-10")), real_data.cifar_part()
    assert (len(cifar.labels), len(cifar.test_labels)) == (4000, 1017)
    assert torch.equal(cifar.inputs, twin.inputs)
    assert torch.equal(cifar.test_inputs, twin.test_inputs)
    assert torch.equal(cifar.labels, twin.labels)
    assert torch.equal(cifar.test_labels, twin.test_labels)
    counts = torch.bincount(cifar.labels)
    assert (int(counts.min()), int(counts.max())) == (366, 422)
    counts = torch.bincount(cifar.test_labels)
    assert (int(counts.min()), int(counts.max())) == (87, 114)


def test_olivetti_stands_upright_and_tests_on_the_last_two_of_each(tmp_path):
    faces = np.random.default_rng(0).integers(0, 256, (20, 64, 64), np.uint8)
    columns = np.stack([face.reshape(-1, order="F") for face in faces], axis=1)
    savemat(tmp_path / "olivettifaces.mat", {"faces": columns})
    olivetti = data.olivetti(tmp_path)
    train = [*range(8), *range(10, 18)]
    assert np.allclose(olivetti.inputs[:, 0].numpy() * 255, faces[train], atol=1e-4)
    assert np.allclose(olivetti.test_inputs[:, 0].numpy() * 255, faces[[8, 9, 18, 19]], atol=1e-4)
    assert olivetti.labels.tolist() == [0] * 8 + [1] * 8
    assert olivetti.test_labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(olivetti.columns["person"], olivetti.labels)
    assert olivetti.num_classes == 2


def test_olivetti_holds_forty_people():
    olivetti = data.olivetti(there("olivetti"))
    assert olivetti.inputs.shape == (320, 1, 64, 64)
    assert torch.equal(torch.bincount(olivetti.labels), torch.full((40,), 8))
    assert torch.equal(torch.bincount(olivetti.test_labels), torch.full((40,), 2))
    assert float(olivetti.inputs.min()) >= 0
    assert float(olivetti.inputs.max()) <= 1
    # Photographs of one person are alike, so a test image is nearest to one of the same person.
    nearest = torch.cdist(olivetti.test_inputs.flatten(1), olivetti.inputs.flatten(1)).argmin(1)
    assert float((olivetti.labels[nearest] == olivetti.test_labels).float().mean()) > 0.8


def test_pneumonia_mnist_keeps_the_splits_of_medmnist(tmp_path):
    halves = {}
    for k, (split, size) in enumerate((("train", 5), ("val", 3), ("test", 2))):
        halves[f"{split}_images"] = np.full((size, 28, 28), 100 * k, np.uint8)
        halves[f"{split}_labels"] = np.arange(size, dtype=np.uint8).reshape(-1, 1) % 2
    np.savez(tmp_path / "pneumoniamnist.npz", **halves)
    pneumonia = data.pneumonia_mnist(tmp_path)
    assert pneumonia.input_shape == (1, 28, 28)
    assert pneumonia.labels.tolist() == [0, 1, 0, 1, 0]
    assert pneumonia.test_labels.tolist() == [0, 1]
    assert float(pneumonia.inputs.max()) == 0
    assert torch.equal(pneumonia.test_inputs, torch.full((2, 1, 28, 28), 200 / 255))


def test_pneumonia_mnist_has_the_published_size():
    pneumonia = data.pneumonia_mnist(there("medmnist"))
    assert torch.bincount(pneumonia.labels).tolist() == [1214, 3494]
    assert torch.bincount(pneumonia.test_labels).tolist() == [234, 390]
    assert pneumonia.num_classes == 2
    assert float(pneumonia.inputs.max()) == 1
