import gzip

import numpy as np

from fedsim.data.mnist import mnist
from tests.real_data import present, unpacked


def test_mnist_knows_its_writers():
    dataset = mnist(unpacked(present("mnist")))
    assert dataset.inputs.shape == (60_000, 1, 28, 28)
    assert float(dataset.inputs.max()) == 1
    assert len(np.unique(dataset.columns["writer"])) == 539
    path = present("mnist") / "QMNIST/raw/qmnist-train-labels-idx2-int.gz"
    raw = gzip.decompress(path.read_bytes())
    labels = np.frombuffer(raw, ">i4", offset=12).reshape(-1, 8)[:, 0]
    assert np.array_equal(labels, dataset.labels)
