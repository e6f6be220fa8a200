import torch

from adversary.inversion.registration import consensus, disagreement
from fedsim.core.rng import generator


def pictures(batch=3):
    return torch.rand(batch, 2, 16, 16, generator=generator(0, "registration"))


def test_disagreement_of_features_by_hand():
    images = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]])
    assert disagreement(images, None).tolist() == [
        0.5,
        0.5,
    ]  # one of two entries is 1 from the mean
    at = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(disagreement(at, None).sum(), at)
    assert slope.tolist() == [[[-1.0, 0.0]], [[1.0, 0.0]]]  # the mean stands still


def test_restarts_that_are_shifted_and_reordered_agree():
    x = pictures()
    moved = torch.stack([x[0].roll((1, -2), dims=(-2, -1)), x[2].roll(1, dims=-1), x[1]])
    images, labels = torch.stack([x, x, moved]), torch.tensor([[0, 1, 1]]).expand(3, 3)
    assert float(disagreement(images, labels).max()) < 1e-10
    torch.testing.assert_close(consensus(images, labels), images)


def test_examples_of_other_labels_do_not_change_places():
    x = pictures(2)
    images = torch.stack([x, x.flip(0)])
    assert float(disagreement(images, torch.tensor([[0, 1], [0, 1]])).min()) > 1e-3
    assert float(disagreement(images, torch.tensor([[0, 1], [1, 0]])).max()) < 1e-10
    assert float(disagreement(images, torch.tensor([[4, 4], [4, 4]])).max()) < 1e-10


def test_a_shift_is_no_larger_than_the_reach():
    x = pictures(1)
    images = torch.stack([x, x, x, x.roll(5, dims=-1)])
    assert float(disagreement(images, torch.zeros(4, 1, dtype=torch.long))[3]) > 1e-3
