import numpy as np
import torch
from scipy.io import savemat

from fedsim.data.olivetti import olivetti
from tests.real_data import present


def test_olivetti_stands_upright_and_tests_on_the_last_two_of_each(tmp_path):
    faces = np.random.default_rng(0).integers(0, 256, (20, 64, 64), np.uint8)
    columns = np.stack([face.reshape(-1, order="F") for face in faces], axis=1)
    savemat(tmp_path / "olivettifaces.mat", {"faces": columns})
    people = olivetti(tmp_path)
    train = [*range(8), *range(10, 18)]
    assert np.allclose(people.inputs[:, 0].numpy() * 255, faces[train], atol=1e-4)
    assert np.allclose(people.test_inputs[:, 0].numpy() * 255, faces[[8, 9, 18, 19]], atol=1e-4)
    assert people.labels.tolist() == [0] * 8 + [1] * 8
    assert people.test_labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(people.columns["person"], people.labels)
    assert people.num_classes == 2


def test_olivetti_holds_forty_people():
    people = olivetti(present("olivetti"))
    assert people.inputs.shape == (320, 1, 64, 64)
    assert torch.equal(torch.bincount(people.labels), torch.full((40,), 8))
    assert torch.equal(torch.bincount(people.test_labels), torch.full((40,), 2))
    assert float(people.inputs.min()) >= 0
    assert float(people.inputs.max()) <= 1
    # Photographs of one person are alike, so a test image is nearest to one of the same person.
    nearest = torch.cdist(people.test_inputs.flatten(1), people.inputs.flatten(1)).argmin(1)
    assert float((people.labels[nearest] == people.test_labels).float().mean()) > 0.8
