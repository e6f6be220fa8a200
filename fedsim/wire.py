"""Tensors ⇄ Flower records: the one place where what travels is encoded and decoded."""

from pathlib import Path

import numpy as np
import safetensors
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedsim.types import Params

ARRAYS = "arrays"  # the ArrayRecord of a train message and of its reply
CONFIG = "config"  # the ConfigRecord of a train message
FEDSIM = "fedsim"  # in it: fedsim's whole config, as JSON
METRICS = "metrics"  # the MetricRecord of a reply
NUM_EXAMPLES = "num-examples"

# What `np.save` writes before the raw bytes of a C-ordered array.
_NPY = b"\x93NUMPY\x01\x00"
_C_ORDER = b"'fortran_order': False"


def to_record(params: Params) -> ArrayRecord:
    """Encode named tensors as an ArrayRecord."""
    return ArrayRecord({name: Array(value.detach().cpu().numpy()) for name, value in params.items()})


def from_record(record: ArrayRecord) -> dict[str, Tensor]:
    """Decode an ArrayRecord into tensors that share no memory with it."""
    return {name: torch.from_numpy(_decode(array)) for name, array in record.items()}


def copy_record(content: RecordDict) -> RecordDict:
    """Copy a RecordDict down to its (immutable) arrays, as a wire would."""
    copy = RecordDict()
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            copy[key] = ArrayRecord(dict(record))
        else:
            copy[key] = type(record)(dict(record))  # type: ignore[arg-type]
    return copy


class FileArray(Array):
    """An Array whose data stay in a safetensors file until somebody asks for them.

    Stands in for a client's upload while a strategy aggregates, so that a round of many large
    updates is never in memory at once.
    """

    def __init__(self, path: Path, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        self.path, self.name = path, name
        self.dtype, self.shape, self.stype = dtype, shape, "numpy.ndarray"

    def numpy(self) -> NDArray:
        """Read the array from its file."""
        with safetensors.safe_open(self.path, framework="np") as file:
            return file.get_tensor(self.name)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes that `Array(self.numpy())` would hold."""
        return Array(self.numpy()).data


def _decode(array: Array) -> NDArray:
    """Return a writable copy of the array.

    Same as `array.numpy()`, four times faster on small arrays: the header is not parsed again,
    because dtype and shape already stand in the Array. Anything unusual goes the long way.
    """
    if isinstance(array, FileArray):
        return array.numpy()
    header = array.data[:128]
    dtype = np.dtype(array.dtype)
    offset = len(array.data) - dtype.itemsize * int(np.prod(array.shape))
    if header.startswith(_NPY) and _C_ORDER in header and offset % 64 == 0 and dtype.isnative:
        return np.frombuffer(array.data, dtype, offset=offset).reshape(array.shape).copy()
    return array.numpy()
