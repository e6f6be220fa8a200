from pathlib import Path

import numpy as np

from fedsim.data.digits import digits


def test_digits_are_the_ones_of_scikit_learn():
    from sklearn.datasets import load_digits

    ours, theirs = digits(Path()), load_digits()
    assert len(ours.labels) + len(ours.test_labels) == len(theirs.target) == 1797
    test = np.arange(1797) % 5 == 4
    assert np.array_equal(ours.test_inputs.numpy()[:, 0] * 16, theirs.images[test])
    assert np.array_equal(ours.labels.numpy(), theirs.target[~test])
