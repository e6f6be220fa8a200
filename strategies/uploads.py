"""What is checked of a reply, against what its client was sent."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from flwr.app import ArrayRecord, Message, MetricRecord
from torch import Tensor

from fedsim.core.accepts import Rule
from fedsim.core.blocks import Block, Row
from fedsim.core.errors import FedsimError, plain
from fedsim.core.in_process import HeldArray, RowRecord
from fedsim.core.params import difference, mismatch, not_finite
from fedsim.core.types import Params, Upload
from fedsim.core.wire import (
    held_record,
    oversized,
    read_record,
    record_of,
    records_of,
    row_of,
)

UPLOAD = "upload of a client"
OFF = "not on tape, logged once; behind a Fence an error of the client"
SENT = Rule(
    UPLOAD, "message", "must hold one ArrayRecord, or one under the strategy's own key", OFF
)
ONCE = Rule(UPLOAD, "message", "must be the only one to its client in a round", OFF)
RECORD = Rule(
    UPLOAD, "content", "must hold one ArrayRecord, or one under the key that was sent", OFF
)
SIZE = Rule(UPLOAD, "any array", "must hold at most the bytes of the one that was sent", OFF)
DECODED = Rule(UPLOAD, "arrays", "must be numeric NumPy arrays", OFF)
NAMES = Rule(UPLOAD, "arrays", "must have the names and shapes that were sent", OFF)
FINITE = Rule(UPLOAD, "any array", "must be finite where what was sent is", OFF)
WEIGHT = Rule(UPLOAD, "number of examples", "must be a number ≥ 0 in the only MetricRecord", OFF)
LARGE = 2**20  # bytes of an upload whose differences are not taken all at once
FORMS = (SENT, ONCE, RECORD, SIZE, DECODED, NAMES, FINITE)


class Refused(FedsimError):
    """An upload that keeps a rule not.

    Args:
        rule: Which.
        reason: The sentence.
    """

    def __init__(self, rule: Rule, reason: str) -> None:
        super().__init__(plain(reason))
        self.rule = rule


class Passed(RowRecord):
    """The arrays of an upload that a fence has checked.

    Args:
        upload: The tensors, of a block in its order; they must not change afterwards.
        kind: Weights or a gradient.
        norm: Of the update.
        record: What held them, where they are as they came.
    """

    kind: Upload
    norm: float

    def __init__(
        self, upload: Params, kind: Upload, norm: float, record: ArrayRecord | None = None
    ) -> None:
        super().__init__()
        row = upload if isinstance(upload, Row) else None
        arrays = {} if record is None else {name: record[name] for name in upload}
        held = arrays and all(type(array) is HeldArray for array in arrays.values())
        vars(self).update(vars(record_of(arrays) if held else held_record(upload)))
        vars(self).update(kind=kind, norm=norm, row=row)

    @property
    def upload(self) -> Params:
        """The tensors; no copies are kept, so that arrays put off to disk leave the memory."""
        return read_record(self) if self.row is None else self.row


def model_of(reply: Message, key: str | None) -> tuple[str, ArrayRecord]:
    """Return the ArrayRecord of a reply that answers the model sent under `key`, and its own key.

    Raises:
        Refused: There is none, or it cannot be told which.
    """
    records = records_of(reply.content, ArrayRecord)
    if len(records) == 1:
        return next(iter(records.items()))
    if key is not None and key in records:
        return key, records[key]
    raise Refused(RECORD, f"content: must hold one ArrayRecord, got {len(records)}")


def decoded(record: ArrayRecord, sent: Params, kind: Upload) -> tuple[Params, float]:
    """Return the tensors of a record that is of the form of what was sent, and the update's norm.

    Raises:
        Refused: It is not, or entries are NaN or infinite where those sent are not.
    """
    row = row_of(record)
    if row is not None and (length := _length_in_block(row, sent, kind)) is not None:
        return row, length
    if reason := oversized(record, sent):
        raise Refused(SIZE, reason)
    try:
        upload = read_record(record)
    except Exception as error:  # NumPy's decoder raises whatever the bytes lead it to
        raise Refused(DECODED, f"arrays: {DECODED.rule} ({error})") from None
    if reason := mismatch(upload, sent):
        raise Refused(NAMES, reason)
    for name, value in upload.items():
        if value.is_complex():
            raise Refused(DECODED, f"{name}: must be real, got {value.dtype}")
    length = update_norm(upload, sent, kind)
    # A norm is finite only if all entries are, but for squares that overflow.
    if not math.isfinite(length) and (reason := not_finite(upload, sent)):
        raise Refused(FINITE, reason)
    return upload, length


def num_examples_of(reply: Message, key: str) -> int | float:
    """Return a reply's weight.

    Raises:
        Refused: It is missing, or no average could be taken with it.
    """
    records = list(records_of(reply.content, MetricRecord).values())
    if len(records) != 1:
        raise Refused(WEIGHT, f"content: must hold one MetricRecord, got {len(records)}")
    value = records[0].get(key)
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise Refused(
            WEIGHT, replace(WEIGHT, field=key, rule="must be a number ≥ 0").message(value)
        )
    return value


def update_norm(upload: Params, sent: Params, kind: Upload) -> float:
    """Return the norm of upload − sent, or of a gradient, in the upload's precision.

    Integers do not count. It may be infinite where the squares are.
    """
    names = [name for name, value in upload.items() if value.is_floating_point()]
    moved: tuple[Tensor, ...] | list[Tensor] = [upload[name] for name in names]
    if kind == "weights" and sum(value.nbytes for value in moved) > LARGE:
        length = _length_of_large(moved, [sent[name] for name in names])
    elif kind == "weights" and moved:
        origin = [sent[n].to(value.dtype) for n, value in zip(names, moved, strict=True)]
        length = _length(torch._foreach_sub(moved, origin))
    else:
        length = _length(moved)
    if kind == "weights" and math.isnan(length):  # constants of ∞
        length = _length([difference(upload[name], sent[name]) for name in names])
    return length


def _length_in_block(row: Row, sent: Params, kind: Upload) -> float | None:
    """Return what `update_norm` returns for a row, computed for all rows at once.

    None where the row must be looked at by itself: it has another form, or numbers that are not
    finite, or other clients were sent something else.
    """
    results = row.block.results
    origin, lengths = results.get(decoded, kind, lambda: (sent, _lengths(row.block, sent, kind)))
    if origin is not sent or not lengths or not math.isfinite(lengths[row.place]):
        return None
    return lengths[row.place]


def _lengths(block: Block, sent: Params, kind: Upload) -> list[float]:
    """Return the norm of each row's update; none of a block of another form."""
    places = block.layout.places
    if places.keys() != sent.keys() or any(places[n].shape != sent[n].shape for n in places):
        return []
    norms = []
    for name, values in block.stacked.items():
        if values.is_floating_point():
            origin = sent[name].to(values.dtype)
            moved = values - origin if kind == "weights" else values
            moved = moved.unsqueeze(-1).flatten(1)  # a number has no axis of its own
            norms.append(torch.linalg.vector_norm(moved, dim=1))
    if not norms:
        return [0.0] * block.count
    return [math.hypot(*parts) for parts in torch.stack(norms, dim=1).tolist()]


def _length_of_large(values: Sequence[Tensor], origins: Sequence[Tensor]) -> float:
    """Return the norm of values − origins; differences are taken in one tensor's memory."""
    most = max(value.numel() for value in values)
    room = {dtype: torch.empty(most, dtype=dtype) for dtype in {it.dtype for it in values}}
    norms = []
    for value, origin in zip(values, origins, strict=True):
        difference = room[value.dtype][: value.numel()].view(value.shape)
        torch.sub(value, origin.to(value.dtype), out=difference)
        norms.append(torch.linalg.vector_norm(difference))
    return math.hypot(*torch.stack(norms).tolist())


def _length(moved: tuple[Tensor, ...] | list[Tensor]) -> float:
    return math.hypot(*torch.stack(torch._foreach_norm(moved)).tolist()) if moved else 0.0
