"""What an attack costs, estimated from shapes before it runs, and the memory that it may take."""

import copy
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsim.core import devices
from fedsim.core.machine import free_memory

GIGA = 1e9
SHARE = 0.5  # of the memory that is free
PROBED = 2  # examples of which a graph is built
GRAPHS = 4  # of the gradient, of its derivative, and what is computed with them
COPIES = 6  # of the weights' entries: gradients, their derivatives, the upload
FIXED = 0.15 * GIGA  # whatever the model


@dataclass(frozen=True)
class Cost:
    """What one answer costs.

    Attributes:
        seconds: CPU-seconds of one core, at most; None where that depends on the update.
        num_bytes: Of memory.
    """

    seconds: float | None
    num_bytes: float

    @property
    def is_large(self) -> bool:
        """Whether it is worth a word before a run: 10 s or 1 GB."""
        return (self.seconds or 0.0) >= 10 or self.num_bytes >= GIGA

    def __str__(self) -> str:
        """In words."""
        memory = f"{_gigabytes(self.num_bytes)} of memory"
        return memory if self.seconds is None else f"{self.duration} and {memory}"

    @property
    def duration(self) -> str:
        """The seconds in words, 0 s where they depend on the update."""
        return _duration(self.seconds or 0.0)


def beyond_memory(
    name: str, cost: Cost, most: float | None, device: torch.device = devices.CPU
) -> str:
    """Return why an attack is not run; empty where its memory suffices.

    Args:
        name: Of the attack.
        cost: Its estimate.
        most: Bytes that it may take; None for half of what is free.
        device: Where it computes.
    """
    unused = free_memory() if device.type == "cpu" else devices.free_memory(device)
    free = unused if most is None else None
    limit = most if free is None else SHARE * free
    if limit is None or cost.num_bytes <= limit:
        return ""
    got = _gigabytes(limit) + (", half of what is free" if most is None else "")
    least = _gigabytes(cost.num_bytes)
    return f"attack.{name}.memory: must be at least {least} as estimated, got {got}"


def allocation(error: BaseException) -> str:
    """Return in words that a tensor found no memory; empty for another error."""
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "memory: must suffice for this attack, got no more"
    if not isinstance(error, RuntimeError) or "allocate memory" not in text:
        return ""
    sizes = [int(it) for it in re.findall(r"(\d+) bytes", text)]
    size = f"{_gigabytes(sizes[0])} more" if sizes else "more"
    free = free_memory()
    got = "less" if free is None else _gigabytes(free)
    return f"memory: must have {size} free for this attack, got {got}"


def of_descent(
    model: nn.Module, shape: tuple[int, ...], count: int, *, rows: int, dtype: torch.dtype
) -> Cost | None:
    """Return the memory of differentiating the gradient of a batch in its inputs.

    The graph of one gradient of two examples is built once, and what it keeps is added up. At
    224×224 pixels and one restart that gives 0.17 to 0.2 GB for LeNet, where gradient matching and
    `joint` took 0.09 to 0.22, and 0.58 GB for ResNet-18, where matching took 0.50 to 0.53.

    Args:
        model: The architecture; a copy is run.
        shape: Of an input.
        count: Examples.
        rows: Batches that are attacked together.
        dtype: Of the arithmetic.

    Returns:
        None for a model that does not run; the attack says why.
    """
    values = model.state_dict().values()
    weights = sum(value.numel() for value in values) * dtype.itemsize
    try:
        kept = _kept(copy.deepcopy(model), shape)
    except Exception:  # of a user's model
        return None
    entries = kept * count / PROBED * dtype.itemsize
    return Cost(None, rows * (GRAPHS * entries + COPIES * weights) + FIXED)


def _kept(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Return how many numbers a gradient's graph keeps, without those of the weights."""
    kept: dict[int, Tensor] = {}
    weights = {value.data_ptr() for value in model.state_dict().values()}

    def pack(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            kept[place] = tensor
        return tensor

    leaves = [p for p in model.parameters() if p.requires_grad]
    x = torch.full((PROBED, *shape), 0.5, dtype=leaves[0].dtype, requires_grad=True)
    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        loss = functional.cross_entropy(model(x), torch.zeros(PROBED, dtype=torch.long))
        gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    del gradients
    return sum(it.untyped_storage().nbytes() // it.itemsize for it in kept.values())


def _gigabytes(num_bytes: float) -> str:
    amount = num_bytes / GIGA
    return f"{amount:.0f} GB" if amount >= 10 else f"{amount:.2g} GB"


def _duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.0f} min"
