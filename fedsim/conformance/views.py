"""Views of a server that saw one upload, and the small model behind them."""

import torch
from torch import Tensor, nn

from fedsim.core.rng import global_stream
from fedsim.core.types import LocalTraining, Observation, Params, Update, View


def bilinear(num_classes: int, *, bias: bool = True, features: int = 5) -> nn.Module:
    """A linear layer, ReLU, and a head; always the same weights."""
    with global_stream(0, "bilinear"):
        return nn.Sequential(
            nn.Linear(4, features), nn.ReLU(), nn.Linear(features, num_classes, bias=bias)
        )


def observe(
    gradient: Params,
    num_examples: int | None,
    *,
    local: LocalTraining | None = None,
    round_: int = 1,
    client: str = "0",
    sent: Params | nn.Module | None = None,
) -> View:
    """Return the view of a server that sent weights (zeros without) and saw one upload."""
    local = local or LocalTraining(lr=0.1, batch_size=num_examples or 1, upload="gradient")
    if sent is None:
        sent = {name: torch.zeros_like(value) for name, value in gradient.items()}
    elif isinstance(sent, nn.Module):
        sent = {name: value.clone() for name, value in sent.state_dict().items()}
    return View([Observation(sent, Update(round_, client, gradient, num_examples), local)])


def plain_gradient(model: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy, by name."""
    loss = nn.functional.cross_entropy(model(inputs), labels)
    names, values = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, values), strict=True))


def same_params(left: Params, right: Params) -> bool:
    """Return whether two states are equal to the bit, in the same order."""
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)
