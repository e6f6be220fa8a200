"""What a hostile client of a simulation may answer, drawn from a seed."""

import os
import random
from collections.abc import Callable

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)

from fedsim.core.wire import ARRAYS, METRICS, NUM_EXAMPLES

TEXTS = ("", "w", "b", "\ud800", "\x00\x1b[2J", "../../x", "é" * 500, "$\\frac{", "arrays", " ")
NUMBERS = (
    0,
    -1,
    1,
    2**53,
    2**63 - 1,
    10**9,
    10**9 + 1,
    -0.0,
    5e-324,
    1e308,
    float("inf"),
    float("nan"),
)
VALUES = (0.0, 1.0, -1.0, 1e-45, 3e38, -3e38, 1e19, 1e300, np.inf, -np.inf, np.nan)
DTYPES = (
    "f4", "f8", "f2", ">f4", "i1", "i8", "u8", "?", "c8", "c16", "U3", "S2", "M8[s]", "g", "V4",
)  # fmt: skip
SHAPES = ((3, 2), (3,), (), (0,), (6,), (2, 3), (3, 2, 1), (1,) * 20)


class Unprintable(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def honest(like: dict[str, np.ndarray], client: int) -> RecordDict:
    """Return what an honest client uploads."""
    arrays = {
        name: Array(np.asarray(value + client).astype(value.dtype)) for name, value in like.items()
    }
    metrics = MetricRecord({NUM_EXAMPLES: 1 + client})
    return RecordDict({ARRAYS: ArrayRecord(arrays), METRICS: metrics})


def values(draw: random.Random) -> np.ndarray:
    """Return an array of any dtype and shape."""
    shape = draw.choice(SHAPES)
    with np.errstate(all="ignore"):
        floats = np.full(shape, draw.choice(VALUES), np.float64)
        if floats.size and draw.random() < 0.5:
            floats.flat[draw.randrange(floats.size)] = draw.choice(VALUES)
        dtype = np.dtype(draw.choice(DTYPES))
        if dtype.kind in "fc":
            return floats.astype(dtype)
        return np.zeros(shape, dtype)


def array(draw: random.Random) -> Array:
    """Return an Array, whole or with fields that say something else."""
    result = Array(values(draw))
    fault = draw.choice(["none", "none", "bytes", "cut", "dtype", "shape", "stype", "data"])
    if fault == "bytes":
        result.__dict__["data"] = draw.randbytes(draw.choice([0, 1, 80, 5000, 10**5]))
    elif fault == "cut":
        result.__dict__["data"] = result.data[: draw.randrange(len(result.data) + 1)]
    elif fault == "dtype":
        result.__dict__["dtype"] = draw.choice(["float32", "object", "", None, "\ud800", 7])
    elif fault == "shape":
        result.__dict__["shape"] = draw.choice([(3,), (-1,), "x", None, (10**12,), (2.5,)])
    elif fault == "stype":
        result.__dict__["stype"] = draw.choice(["", "pickle", None])
    elif fault == "data":
        result.__dict__["data"] = draw.choice([None, 7, "text", bytearray(3), memoryview(b"x")])
    return result


def content(draw: random.Random, like: dict[str, np.ndarray]) -> RecordDict:
    """Return an honest content with some changes."""
    result = honest(like, draw.randrange(4))
    for _ in range(draw.randrange(1, 4)):
        records = [record for record in result.values() if isinstance(record, ArrayRecord)]
        change = draw.randrange(9)
        if change <= 2 and records:
            draw.choice(records)[draw.choice([*like, *like, *TEXTS])] = array(draw)
        elif change == 3 and records:
            record = draw.choice(records)
            if record:
                del record[draw.choice(list(record))]
        elif change == 4:
            key = draw.choice([NUM_EXAMPLES, NUM_EXAMPLES, "loss", *TEXTS])
            value = draw.choice([*NUMBERS, [1, 2], [0.5], []])
            result[METRICS] = MetricRecord({NUM_EXAMPLES: 2} | {key: value})
        elif change == 5:
            result.pop(draw.choice(list(result)), None) if result else None
        elif change == 6:
            record = ArrayRecord()
            record[draw.choice(TEXTS)] = array(draw)
            result[draw.choice(TEXTS)] = record
        elif change == 7:
            result[draw.choice(TEXTS)] = ConfigRecord({"x": draw.choice(TEXTS)})
        elif change == 8 and records:
            record = draw.choice(records)
            for name in sorted(record, reverse=True):
                record[name] = record.pop(name)
    return result


def answer(
    draw: random.Random, like: dict[str, np.ndarray]
) -> Callable[[Message, Context], object]:
    """Return a ClientApp of one message."""
    kind = draw.randrange(20)
    if kind == 0:
        return lambda message, context: draw.choice([None, 7, "reply", [], object(), message])
    if kind == 1:
        error = draw.choice(
            [
                SystemExit(3), Unprintable(), GeneratorExit(), MemoryError(), StopIteration(),
                RecursionError("x" * 10**5), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "\ud800"),
                ValueError("\ud800"),
            ]
        )  # fmt: skip

        def fail(message: Message, context: Context) -> Message:
            raise error

        return fail
    if kind == 2:
        return lambda message, context: os._exit(draw.randrange(256))
    if kind == 3:
        reason = draw.choice([*TEXTS, None, "x" * 10**5, 7, b"bytes"])
        return lambda message, context: Message(
            Error(draw.choice([0, -1, 2**40]), reason), reply_to=message
        )
    made = content(draw, like)

    def reply(message: Message, context: Context) -> Message:
        result = Message(made, reply_to=message)
        if draw.random() < 0.3:
            field = draw.choice(
                ["_reply_to_message_id", "_src_node_id", "_message_id", "_ttl", "_group_id"]
            )
            result.metadata.__dict__[field] = draw.choice(["1", "", 2, None, [], -1.0])
        if draw.random() < 0.1:
            context.__dict__["node_id"] = draw.choice([2, None, "x"])
        return result

    return reply
