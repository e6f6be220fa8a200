"""The gradient that a batch of texts would have given, against an update."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional

from fedsim.core import sgd
from fedsim.core.form import IGNORED
from fedsim.core.types import Observation

Text = tuple[int, ...]


def padded(texts: Sequence[Text], pad: int) -> tuple[Int[Tensor, "n length"], Int[Tensor, " n"]]:
    """Return texts as rows of one tensor, padded on the right, and their lengths."""
    lengths = torch.tensor([len(text) for text in texts])
    ids = torch.full((len(texts), int(lengths.max())), pad)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    return ids, lengths


def next_tokens(
    ids: Int[Tensor, "n length"], lengths: Int[Tensor, " n"], last: Sequence[int]
) -> Int[Tensor, "n length"]:
    """Return the target of each position: the next token, −100 behind a text.

    Args:
        ids: Padded texts.
        lengths: Of the texts.
        last: What follows the last token of each.
    """
    targets = torch.full_like(ids, IGNORED)
    targets[:, :-1] = ids[:, 1:]
    targets[torch.arange(ids.shape[1]) >= lengths[:, None]] = IGNORED
    targets[torch.arange(len(ids)), lengths - 1] = torch.tensor(last)
    return targets


def likeness(
    model: nn.Module, observation: Observation, ids: Int[Tensor, "n length"], targets: Tensor
) -> float:
    """Return the cosine of a batch's gradient at the weights sent and the client's descent.

    Args:
        model: In evaluation mode, with the weights sent.
        observation: With the update.
        ids: Padded texts.
        targets: What the loss takes.
    """
    delta, local = observation.update.delta, observation.local
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad and n in delta}
    with torch.enable_grad():
        loss = functional.cross_entropy(model(ids), targets, label_smoothing=local.label_smoothing)
        gradients = sgd.gradients(loss, weights)
    sign = -1 if local.upload == "weights" else 1
    one = torch.cat([it.double().flatten() for it in gradients])
    other = torch.cat([sign * delta[name].double().flatten() for name in weights])
    return float(functional.cosine_similarity(one, other, dim=0))
