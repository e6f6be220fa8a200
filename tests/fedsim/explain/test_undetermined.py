"""How much of each entry of an answer its update says nothing of."""

import pytest
import torch
from torch import nn

from fedsim.core.rng import generator, global_stream
from fedsim.core.types import LocalTraining, Observation, Update
from fedsim.explain import undetermined


class Stepping(nn.Module):
    """The first half of its input goes through a step."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 3, bias=False)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(torch.cat([(x[:, :32] > 0.5).to(x.dtype), x[:, 32:]], dim=1))


class Training(nn.Module):
    """Every second pixel is used in training alone."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(x if self.training else torch.cat([x[:, ::2]] * 2, dim=1))


class Broken(nn.Module):
    """Only takes float32."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        if x.dtype != torch.float32:
            raise ValueError("float32 only")
        return self.head(x.flatten(1))


def strided(**options):
    return [nn.Conv2d(1, 4, 1, stride=2, **options), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)]


MODELS = {
    "strided": (lambda: nn.Sequential(*strided()), 48),
    "pooled": (lambda: nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)), 48),
    "plain": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), None),
    "with buffers": (lambda: nn.Sequential(nn.BatchNorm2d(1), *strided()), None),
    "stepping": (Stepping, None),
    "training": (Training, None),
    "broken": (Broken, None),
}


@pytest.mark.parametrize("upload", ["weights", "gradient"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_hidden_has_shares_and_nothing_that_cannot_be_said(name, upload):
    make, count = MODELS[name]
    with global_stream(0, name):
        model = make()
    sent = {key: value.clone() for key, value in model.state_dict().items()}
    delta = {key: 0.01 * torch.ones_like(value) for key, value in sent.items()}
    update = Update(round=1, client="0", delta=delta, num_examples=2)
    observation = Observation(sent, update, LocalTraining(0.1, 2, upload=upload))
    inputs = torch.rand(2, 1, 8, 8, generator=generator(0, "inputs"))
    shares = undetermined(model, observation, inputs)
    assert (shares is None) == (count is None)
    if shares is not None:
        assert [float(it.sum()) for it in shares] == pytest.approx([count, count], rel=1e-5)
        if name == "strided":
            assert shares.unique().tolist() == [0, 1]
            assert not shares[:, :, ::2, ::2].any()
        else:
            torch.testing.assert_close(shares, torch.full_like(shares, 0.75))
    assert all(torch.equal(value, sent[key]) for key, value in model.state_dict().items())
