"""Stand-ins for Flower's objects while these stay in one process.

Each spares what Flower does for objects that travel: encoding, copies, checks. Sent to another
machine it is the object that it stands for: Flower writes the name of a class before its bytes, and
the other side has Flower's own classes alone.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.blocks import Row

STYPE = "numpy.ndarray"  # how Flower calls arrays of NumPy's
_KEPT = "kept_of_kind"  # the attribute of a content with what it keeps


class Sendable:
    """A stand-in that is sent as what it stands for."""

    def plain(self) -> Array | ArrayRecord | RecordDict:
        """Return the object that it stands for."""
        raise NotImplementedError

    def deflate(self) -> bytes:
        """Return the bytes that Flower sends of that object."""
        return self.plain().deflate()


class Content(Sendable, RecordDict):
    """A RecordDict that keeps Flower's dictionaries of one kind of record until it changes.

    Flower makes a new one each time, six times for each reply that it averages.
    """

    def plain(self) -> RecordDict:
        """Return Flower's own."""
        return RecordDict(dict(self.items()))

    @property
    def array_records(self) -> Any:
        """Dictionary holding only ArrayRecord instances."""
        return self._kept(ArrayRecord, lambda: super(Content, self).array_records)

    @property
    def metric_records(self) -> Any:
        """Dictionary holding only MetricRecord instances."""
        return self._kept(MetricRecord, lambda: super(Content, self).metric_records)

    def __setitem__(self, key: str, value: ArrayRecord | MetricRecord | ConfigRecord) -> None:
        vars(self).pop(_KEPT, None)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        vars(self).pop(_KEPT, None)
        super().__delitem__(key)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != _KEPT}

    def _kept(self, kind: type, make: Callable[[], Any]) -> Any:
        kept = vars(self).get(_KEPT, {})
        if kind not in kept:
            made = make()  # which puts each record again into this content
            vars(self)[_KEPT] = kept = {**kept, kind: made}
        return kept[kind]


class LazyArray(Sendable, Array):
    """An Array whose values are fetched, each time somebody asks for them.

    Stands in for a client's upload while a strategy aggregates: from memory it spares decoding
    again, and from disk a round of many large updates is never in memory at once.

    Args:
        fetch: Returns the values, in memory of the caller's own.
        dtype: Name of their type.
        shape: Their shape.
    """

    fetch: Callable[[], NDArray]

    def __init__(self, fetch: Callable[[], NDArray], dtype: str, shape: tuple[int, ...]) -> None:
        # Past Flower's own setter, which takes longer than all the rest.
        vars(self).update(fetch=fetch, dtype=dtype, shape=shape, stype=STYPE)

    def numpy(self) -> NDArray:
        """Return the values."""
        return self.fetch()

    def plain(self) -> Array:
        """Return Flower's own, with the values in it."""
        return Array(self.numpy())

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes that `Array(self.numpy())` would hold."""
        return self.plain().data


class HeldArray(LazyArray):
    """An Array whose values are in this process and do not change.

    Args:
        values: They.
    """

    values: NDArray

    def __init__(self, values: NDArray) -> None:
        fields = {"dtype": name_of(values.dtype), "shape": values.shape, "stype": STYPE}
        vars(self).update(fields, values=values)

    def numpy(self) -> NDArray:
        """Return a copy of the values."""
        return self.values.copy()

    def tensor(self) -> Tensor:
        """Return the values themselves, not to be changed; a copy where it is in another order."""
        flags = self.values.flags
        whole = flags.c_contiguous and flags.writeable  # those of another process may be neither
        return torch.from_numpy(self.values if whole else self.values.copy())


class RowRecord(Sendable, ArrayRecord):
    """An ArrayRecord of a row of a block, as long as nobody puts another array in it.

    Attributes:
        row: The tensors of its arrays; None where it is not known whose they are.
    """

    row: Row | None = None

    def plain(self) -> ArrayRecord:
        """Return Flower's own, of the same arrays."""
        return ArrayRecord(dict(self.items()))

    def __setitem__(self, key: str, value: Array) -> None:
        vars(self)["row"] = None
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        vars(self)["row"] = None
        super().__delitem__(key)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "row": None}  # a copy takes its arrays along, and not the block


@lru_cache(maxsize=64)
def name_of(dtype: np.dtype) -> str:
    """Return what Flower calls the type of an array's values."""
    return str(dtype)
