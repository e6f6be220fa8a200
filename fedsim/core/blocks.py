"""Tensors of several clients in one memory, a row for each, as a file of groups holds them.

In: names, types and shapes, and how many rows. Out: the arrays of all rows at once, or those of one
row. What is trained together so is checked, summed up and written together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.memory import Memory
from fedsim.core.types import Params

ALIGNED = 8  # bytes
PLAIN = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.int64, torch.int32}
    | {torch.int16, torch.int8, torch.uint8, torch.bool}
)  # types that NumPy has, too


@dataclass(frozen=True)
class Place:
    """Where an array lies in a row: from a byte to another, and of what type and shape it is."""

    begin: int
    end: int
    dtype: torch.dtype
    shape: torch.Size


@dataclass(frozen=True)
class Layout:
    """How tensors lie in a row.

    Attributes:
        places: Name → place, in the order of the row: wide types first, so that all are aligned.
        names: In the order in which they were given.
        size: Bytes of a row, a multiple of eight.
    """

    places: Mapping[str, Place]
    names: tuple[str, ...]
    size: int

    @property
    def lack(self) -> int:
        """How many bytes fill up a row."""
        return self.size - max((place.end for place in self.places.values()), default=0)


def layout_of(tensors: Params) -> Layout:
    """Return how tensors lie in a row."""
    places, end = {}, 0
    for name in sorted(tensors, key=lambda name: -tensors[name].element_size()):
        begin, end = end, end + tensors[name].nbytes
        places[name] = Place(begin, end, tensors[name].dtype, tensors[name].shape)
    return Layout(places, tuple(tensors), end + -end % ALIGNED)


class Block:
    """Rows of tensors of one form.

    Args:
        like: Tensors of that form, of `PLAIN` types.
        count: How many rows; their values are arbitrary at first.

    Attributes:
        stacked: Name → the arrays of all rows, shape (count, *shape).
        results: What was computed of all rows, once.
    """

    def __init__(self, like: Params, count: int) -> None:
        self.layout, self.count = layout_of(like), count
        self.results = Memory()
        self._memory = torch.empty((count, self.layout.size), dtype=torch.uint8)
        self._memory[:, self.layout.size - self.layout.lack :] = 0
        self.stacked = {name: self._column(name) for name in like}

    def row(self, place: int) -> "Row":
        """Return one row."""
        return Row(self, place)

    def bytes_of(self, first: int, last: int) -> memoryview:
        """Return the memory of neighbouring rows, the last one excluded."""
        return self._memory[first:last].flatten().numpy().data

    @cached_property
    def columns(self) -> dict[str, Sequence[Tensor]]:
        """Name → the array of each row."""
        return {name: values.unbind() for name, values in self.stacked.items()}

    @cached_property
    def arrays(self) -> dict[str, Sequence[NDArray]]:
        """Name → the array of each row, NumPy's."""
        whole = {name: values.numpy() for name, values in self.stacked.items()}
        return {name: [it[k, ...] for k in range(self.count)] for name, it in whole.items()}

    def _column(self, name: str) -> Tensor:
        place = self.layout.places[name]
        if place.begin == place.end:
            return torch.empty((self.count, *place.shape), dtype=place.dtype)
        values = self._memory[:, place.begin : place.end].view(place.dtype)
        return values.view(self.count, *place.shape)


class Row(Mapping[str, Tensor]):
    """The tensors of one row of a block; nobody may change them once the block is full."""

    def __init__(self, block: Block, place: int) -> None:
        self.block, self.place = block, place

    def __getitem__(self, name: str) -> Tensor:
        return self.block.columns[name][self.place]

    def __iter__(self) -> Iterator[str]:
        return iter(self.block.layout.names)

    def __len__(self) -> int:
        return len(self.block.layout.names)
