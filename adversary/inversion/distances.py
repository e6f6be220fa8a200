"""How far a simulated upload is from the observed one."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Distance = Literal["l2", "cosine", "l1"]


def _cosine(upload: Tensor, observed: Tensor) -> Tensor:
    inner = (upload * observed).sum(dim=1)
    lengths = upload.norm(dim=1) * observed.norm(dim=1)
    return 1 - inner / lengths.clamp(min=torch.finfo(upload.dtype).tiny)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda a, b: (a - b).square().sum(dim=1) / b.square().sum(dim=1),
    "cosine": _cosine,
    "l1": lambda a, b: (a - b).abs().sum(dim=1) / b.abs().sum(dim=1),
}
