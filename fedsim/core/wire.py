"""Tensors ⇄ Flower records: the one place where what travels is encoded and decoded."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeVar, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.blocks import Block, Row
from fedsim.core.in_process import STYPE, Content, HeldArray, LazyArray, RowRecord, name_of
from fedsim.core.types import Params

ARRAYS = "arrays"  # the ArrayRecord of a train message and of its reply
CONFIG = "config"  # the ConfigRecord of a train message
FEDSIM = "fedsim"  # in it: fedsim's whole config, as JSON
BASE = "base"  # in it: a hash of the model's frozen parameters, where it has any
METRICS = "metrics"  # the MetricRecord of a reply
NUM_EXAMPLES = "num-examples"

Kind = TypeVar("Kind", ArrayRecord, MetricRecord, ConfigRecord)
Filled = TypeVar("Filled", ArrayRecord, MetricRecord, ConfigRecord, RecordDict)
_ENTRIES = "_data"  # the attribute of a record in which Flower keeps what is in it
_HEADER, _WIDEST = 4096, 16  # bytes before the values, and of one value, at most


def to_record(params: Params) -> ArrayRecord:
    """Encode named tensors as an ArrayRecord."""
    return ArrayRecord({name: _encode(_values(value)) for name, value in params.items()})


def held_record(params: Params) -> ArrayRecord:
    """Return named tensors as an ArrayRecord that is encoded only where it leaves the process.

    The tensors must not change afterwards.
    """
    if not isinstance(params, Row):
        return record_of({name: HeldArray(_values(value)) for name, value in params.items()})
    record = RowRecord()
    fields = params.block.results.get(held_record, None, lambda: _fields(params.block))
    record_of({name: _held(*of, params.place) for name, of in fields.items()}, record)
    vars(record)["row"] = params
    return record


def _fields(block: Block) -> dict[str, tuple[dict[str, Any], Sequence[NDArray]]]:
    """Return what the arrays of a block's rows have in common, and the values of each."""
    alike = lambda values: {
        "dtype": name_of(values.numpy().dtype),
        "shape": tuple(values.shape[1:]),
        "stype": STYPE,
    }
    return {name: (alike(values), block.arrays[name]) for name, values in block.stacked.items()}


def _held(fields: Mapping[str, Any], rows: Sequence[NDArray], place: int) -> HeldArray:
    array = HeldArray.__new__(HeldArray)
    vars(array).update(fields, values=rows[place])
    return array


def record_of(arrays: Mapping[str, Array], record: ArrayRecord | None = None) -> ArrayRecord:
    """Return arrays as an ArrayRecord; its setter checks each, which takes ten times as long.

    Args:
        arrays: They.
        record: An empty one to take; a new one by default.
    """
    return filled(ArrayRecord() if record is None else record, arrays)


def content_of(records: Mapping[str, ArrayRecord | MetricRecord | ConfigRecord]) -> RecordDict:
    """Return `RecordDict(records)`, without its check of each in a fifth of the time."""
    return filled(Content(), records)


def metrics_of(metrics: Mapping[str, int | float]) -> MetricRecord:
    """Return `MetricRecord(metrics)`, without its check of each in a third of the time."""
    return filled(MetricRecord(), metrics)


def facts_of(facts: Mapping[str, int | float]) -> ConfigRecord:
    """Return `ConfigRecord(facts)`, without its check of each in a third of the time."""
    return filled(ConfigRecord(), facts)


def filled(record: Filled, entries: Mapping[str, Any]) -> Filled:
    """Put entries into a record past its setter, which checks each."""
    kept = vars(record).get(_ENTRIES)
    if type(kept) is dict:
        kept.update(entries)
    else:  # kept elsewhere by this version of Flower
        record.update(entries)
    return record


def tensors_in(record: ArrayRecord) -> Params:
    """Return what `read_record` returns; of a row of a block the row itself."""
    return row_of(record) or read_record(record)


def from_record(record: ArrayRecord) -> dict[str, Tensor]:
    """Decode an ArrayRecord into tensors that share no memory with it."""
    return {name: torch.from_numpy(_decode(array)) for name, array in record.items()}


def read_record(record: ArrayRecord) -> dict[str, Tensor]:
    """Decode an ArrayRecord into tensors that nobody may change: held ones are not copied."""
    if (row := row_of(record)) is not None:
        return dict(row)
    return {
        name: array.tensor() if type(array) is HeldArray else torch.from_numpy(_decode(array))
        for name, array in record.items()
    }


def oversized(record: ArrayRecord, like: Params) -> str | None:
    """Return which array holds more bytes than one of the shape in `like` can, or None.

    Asked before anything is decoded, which would take the same memory again.
    """
    for name, array in record.items():
        if type(array) in (LazyArray, HeldArray):  # its values are in this process, or on its disk
            continue
        limit = _HEADER + _WIDEST * (like[name].numel() if name in like else 0)
        if len(array.data) > limit:
            return f"{name}: must hold at most {limit} bytes, got {len(array.data)}"
    return None


def records_of(content: RecordDict, kind: type[Kind]) -> dict[str, Kind]:
    """Return the records of one kind, by their keys.

    Flower's own `array_records` and the like build a dictionary that writes through to the
    content, which takes ten times as long.
    """
    ours = {name: it for name, it in content.items() if _is_kind(type(it), kind)}
    return cast("dict[str, Kind]", ours)


_is_kind = lru_cache(maxsize=256)(issubclass)  # of abstract classes, which ask for longer


def row_of(record: ArrayRecord) -> Row | None:
    """Return the row of a block whose tensors a record holds; None where it holds others."""
    return record.row if isinstance(record, RowRecord) else None


def _values(value: Tensor) -> NDArray:
    """Return a tensor's values; floats that NumPy lacks, such as bfloat16, as float32."""
    plain = value.detach().cpu()
    try:
        return plain.numpy()
    except TypeError:
        return plain.float().numpy()


def _encode(values: NDArray) -> Array:
    """Return `Array(values)`, to the byte, in a quarter of its time on small arrays."""
    if not values.flags.c_contiguous:
        return Array(values)
    header = _header(values.dtype.str, values.shape)
    data = b"".join((header, values.reshape(-1).view(np.uint8).data))
    return Array(str(values.dtype), values.shape, STYPE, data)


def _decode(array: Array) -> NDArray:
    """Return `array.numpy()`, writable, in a quarter of its time on small arrays.

    The header need not be parsed where it is the one that `_encode` writes for the dtype and
    shape that stand in the Array; anything else goes the long way.
    """
    if isinstance(array, LazyArray):
        return array.numpy()
    dtype = np.dtype(array.dtype)
    header = b"" if dtype.hasobject else _header(dtype.str, array.shape)
    if header and array.data.startswith(header):
        values = np.frombuffer(array.data, dtype, offset=len(header))
        return values.reshape(array.shape).copy()
    return array.numpy()


@lru_cache(maxsize=4096)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return what `np.save` writes before the raw bytes of a C-ordered array."""
    text = BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(text, fields)
    return text.getvalue()
