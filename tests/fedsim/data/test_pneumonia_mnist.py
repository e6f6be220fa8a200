import numpy as np
import torch

from fedsim.data.pneumonia_mnist import pneumonia_mnist
from tests.real_data import present


def test_pneumonia_mnist_keeps_the_splits_of_medmnist(tmp_path):
    halves = {}
    for k, (split, size) in enumerate((("train", 5), ("val", 3), ("test", 2))):
        halves[f"{split}_images"] = np.full((size, 28, 28), 100 * k, np.uint8)
        halves[f"{split}_labels"] = np.arange(size, dtype=np.uint8).reshape(-1, 1) % 2
    np.savez(tmp_path / "pneumoniamnist.npz", **halves)
    pneumonia = pneumonia_mnist(tmp_path)
    assert pneumonia.input_shape == (1, 28, 28)
    assert pneumonia.labels.tolist() == [0, 1, 0, 1, 0]
    assert pneumonia.test_labels.tolist() == [0, 1]
    assert float(pneumonia.inputs.max()) == 0
    assert torch.equal(pneumonia.test_inputs, torch.full((2, 1, 28, 28), 200 / 255))


def test_pneumonia_mnist_has_the_published_size():
    pneumonia = pneumonia_mnist(present("medmnist"))
    assert torch.bincount(pneumonia.labels).tolist() == [1214, 3494]
    assert torch.bincount(pneumonia.test_labels).tolist() == [234, 390]
    assert pneumonia.num_classes == 2
    assert float(pneumonia.inputs.max()) == 1
