"""Arrays of a reply that read themselves when they are asked for, so that few are in memory."""

import weakref
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fedsim.core.files import TensorFile
from fedsim.core.in_process import LazyArray
from fedsim.core.types import Params


class Spooled:
    """Arrays of a file that is deleted once nobody can ask for them any more.

    A strategy may keep a reply for later rounds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        weakref.finalize(self, path.unlink, missing_ok=True)

    def __call__(self, name: str) -> NDArray:
        """Return an array."""
        return _from_file(self.path, name)


def put_off(record: ArrayRecord, fetch: Callable[[str], NDArray]) -> None:
    """Put arrays that are fetched by name in place of a record's own."""
    for name, array in record.items():
        record[name] = LazyArray(partial(fetch, name), array.dtype, array.shape)


def read_whole(result: Any) -> Any:
    """Return an aggregate; where it is a reply's own record, with arrays in place of lazy ones."""
    for record in result if isinstance(result, tuple) else ():
        if isinstance(record, ArrayRecord):
            for name, array in record.items():
                record[name] = Array(array.numpy()) if isinstance(array, LazyArray) else array
    return result


def from_memory(upload: Params, name: str) -> NDArray:
    """Return a copy of one array of an upload."""
    return upload[name].numpy().copy()


def _from_file(path: Path, name: str) -> NDArray:
    return _open(path)[name].numpy()


@lru_cache(maxsize=1)  # one, because a mapped file counts as memory
def _open(path: Path) -> TensorFile:
    return TensorFile(path)


def close_file() -> None:
    """Close the file that was read last."""
    _open.cache_clear()
