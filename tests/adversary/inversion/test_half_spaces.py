import torch

from adversary.inversion.half_spaces import separating
from fedsim.core.rng import generator


def test_the_hyperplane_of_an_input_has_its_inactive_units_on_the_negative_side():
    stream = generator(0, "features")
    features = torch.randn(400, 8, generator=stream, dtype=torch.float64)
    features = torch.linalg.qr(features)[0] * 20
    x = torch.randn(8, generator=stream, dtype=torch.float64)
    normal = separating(features, features @ x < 0, torch.zeros(8).double(), steps=12)
    assert torch.equal(features @ normal < 0, features @ x < 0)
    assert torch.cosine_similarity(normal, x, dim=0) > 0.99


def test_two_intersecting_half_spaces_are_no_half_space():
    features = torch.randn(400, 8, generator=generator(0, "features"), dtype=torch.float64)
    features = torch.linalg.qr(features)[0] * 20
    both = (features[:, 0] < 0) & (features[:, 1] < 0)
    normal = separating(features, both, torch.zeros(8).double(), steps=12)
    assert ((features @ normal < 0) != both).double().mean() > 0.05
