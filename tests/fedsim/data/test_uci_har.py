import numpy as np
import torch

from fedsim.data.uci_har import uci_har
from tests.real_data import present


def test_uci_har_tests_on_the_end_of_each_activity(tmp_path):
    # Two subjects who take turns at two activities: 10 windows of each, in the order of time.
    activity = np.tile(np.repeat([0, 5], 5), 4).astype(np.uint8)
    subject = np.repeat([1, 7], 20).astype(np.uint8)
    features = np.stack([np.arange(40), np.full(40, 32767)], axis=1).astype(np.int16)
    np.savez(
        tmp_path / "uci_har_train_21subjects.npz",
        x_int16=features, scale=1 / 32767, y=activity, subject=subject,
    )  # fmt: skip
    har = uci_har(tmp_path)
    # Of each: eight before the cut, of which the last overlaps the first of the two after it.
    rows = (har.inputs[:, 0] * 32767).round().int().tolist()
    test_rows = (har.test_inputs[:, 0] * 32767).round().int().tolist()
    assert test_rows == [13, 14, 18, 19, 33, 34, 38, 39]
    assert sorted({*range(40)} - {*rows} - {*test_rows}) == [12, 17, 32, 37]
    assert not {*rows} & {*test_rows}
    assert torch.equal(har.inputs[:, 1], torch.ones(len(rows)))
    assert har.labels.tolist() == activity[rows].tolist()
    assert har.test_labels.tolist() == activity[test_rows].tolist()
    assert har.columns["subject"].tolist() == subject[rows].tolist()


def test_uci_har_has_the_published_size():
    har = uci_har(present("uci-har"))
    assert len(har.labels) + len(har.test_labels) == 7352 - 21 * 6  # a window at each seam
    published = torch.tensor([1226, 1073, 986, 1286, 1374, 1407])
    kept = torch.bincount(har.labels) + torch.bincount(har.test_labels)
    assert torch.equal(kept, published - 21)
    assert har.input_shape == (561,)
    assert har.num_classes == 6
    assert float(har.inputs.abs().max()) <= 1
    assert len(np.unique(har.columns["subject"])) == 21
    assert len(har.columns["subject"]) == len(har.labels)
