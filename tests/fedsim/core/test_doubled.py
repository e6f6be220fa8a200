"""Models whose code names a type compute in float64 all the same."""

import copy

import pytest
import torch
from torch import nn

from fedsim.core.doubled import doubled
from fedsim.core.rng import generator, global_stream


class Stateful(nn.Module):
    """Starts a recurrent layer from zeros of torch's default type."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        zeros = torch.zeros(1, len(x), 4)
        return self.head(self.body(x, (zeros, zeros))[0][:, -1])


class Casting(nn.Module):
    """Casts its input, multiplies it by a constant that is no buffer, and names types."""

    def __init__(self):
        super().__init__()
        self.head, self.constant = nn.Linear(3, 2), [torch.eye(3)]

    def forward(self, x):
        x = x.float().mean(dim=1).to(torch.float32) @ self.constant[0]
        return self.head(torch.stack([x, torch.zeros(x.shape, dtype=torch.float32)]).sum(dim=0))


class Failing(nn.Module):
    """Raises."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        raise KeyError("x")


class Halved(nn.Module):
    """Computes in bfloat16."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2).bfloat16()

    def forward(self, x):
        return self.head(x.mean(dim=1).bfloat16()).float()


@pytest.mark.parametrize("make", [Stateful, Casting, Halved])
def test_it_computes_in_float64_what_the_model_computes_in_fewer_bits(make):
    with global_stream(0, "model"):
        model = make()
    x = torch.rand(5, 2, 3, generator=generator(0, "x"), dtype=torch.float64)
    twin = copy.deepcopy(doubled(model))
    logits = twin(x)
    assert logits.dtype == torch.float64
    rtol = 1e-2 if make is Halved else 1e-5
    torch.testing.assert_close(logits.float(), model(x.float()), rtol=rtol, atol=rtol)
    assert torch.zeros(1).dtype == torch.get_default_dtype() == torch.float32
    assert next(model.parameters()).dtype != torch.float64
    (slope,) = torch.autograd.grad(logits.sum(), [twin.head.weight], create_graph=True)
    assert slope.dtype == torch.float64


def test_a_failure_leaves_torch_as_it_was():
    with pytest.raises(KeyError):
        doubled(Failing())(torch.rand(1, 2, 3))
    assert torch.get_default_dtype() == torch.zeros(1).float().dtype == torch.float32
