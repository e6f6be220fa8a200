"""What may be taken from a strategy: an aggregate that is a finite model."""

from typing import Any

from flwr.app import ArrayRecord

from fedsim.core.accepts import Rule
from fedsim.core.params import cast_like, mismatch, not_finite
from fedsim.core.types import Params
from fedsim.core.wire import from_record

AGGREGATE = "aggregate of a strategy"
STOPS = "the run stops; nothing of the round is committed"
MODEL = Rule(AGGREGATE, "arrays", "must be an ArrayRecord with the model's names and shapes", STOPS)
REAL = Rule(AGGREGATE, "any array", "must be real numbers, finite in the model's dtype", STOPS)
CHECKS = (MODEL, REAL)


def not_a_model(arrays: Any, model: Params, dtypes: Params) -> str | None:
    """Return what keeps an aggregate from being the next model, or None.

    Args:
        arrays: What the strategy gave.
        model: The model that it was given.
        dtypes: Tensors in the dtypes that clients are sent.
    """
    if not isinstance(arrays, ArrayRecord):
        return f"a {type(arrays).__name__}"
    try:
        aggregate = from_record(arrays)
    except Exception as error:  # NumPy's decoder raises whatever the bytes lead it to
        return f"arrays that are not numbers ({error})"
    if reason := mismatch(aggregate, model):
        return reason
    for name, value in aggregate.items():
        if value.is_complex():
            return f"{name} of {value.dtype}"
    return not_finite_in(aggregate, model, dtypes)


def not_finite_in(params: Params, like: Params, dtypes: Params) -> str | None:
    """Return which entry is not finite, or would not be in `dtypes`, or None."""
    return not_finite(params, like) or not_finite(cast_like(params, dtypes), like)
