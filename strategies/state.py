"""A strategy's own memory (moments, momentum, current arrays), taken out and put back.

Flower cannot resume a run. This takes whatever plain data a strategy holds in its attributes, so
that it works for strategies we have never seen. Functions and other objects stay as built. What
has changed since then is lost, and `restore` refuses to go on without it.
"""

import hashlib
import pickle
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sized
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedsim.core.accepts import Rule
from fedsim.core.errors import ConfigError

MEMORY = Rule(
    "strategy",
    "memory",
    "must be plain data, arrays, deques or generators of random numbers to be resumed",
    "a run is as always; `--resume` is refused once other objects changed",
)
CHECKS = (MEMORY,)
DEEPEST = 12  # of values in values
KEPT = {"kept": True}


def capture(
    strategy: Strategy, built: Mapping[str, str] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a strategy's arrays, and a JSON description of where they and its numbers belong.

    Args:
        strategy: Any.
        built: Its `objects` before the first round, so that changes of them are called lost.
    """
    tensors: dict[str, Tensor] = {}
    description = _describe(strategy, "strategy", tensors)
    if built is not None:
        after = dict(_objects(strategy, description, type(strategy).__name__))
        description["lost"] = [path for path in after if built.get(path) != after[path]]
    return tensors, description


def restore(strategy: Strategy, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Put captured memory back into a strategy built the same way.

    Raises:
        ConfigError: Some of it could not be captured.
    """
    if lost := description.get("lost"):
        raise ConfigError(f"resume: a strategy's {MEMORY.message(f'another object in {lost[0]}')}")
    fields = {key: value for key, value in description.items() if key != "lost"}
    _rebuild(fields, tensors, strategy)


def objects(strategy: Strategy) -> dict[str, str]:
    """Return what stays as built, by attribute, as a fingerprint each."""
    description = _describe(strategy, "strategy", {})
    return dict(_objects(strategy, description, type(strategy).__name__))


def _objects(
    strategy: Strategy, description: dict[str, Any], path: str
) -> Iterator[tuple[str, str]]:
    for name, field in description["strategy"].items():
        value, place = getattr(strategy, name, None), f"{path}.{name}"
        if isinstance(value, Strategy) and "strategy" in field:
            yield from _objects(value, field, place)
        elif field == KEPT and not isinstance(value, FunctionType | MethodType | type | Strategy):
            yield place, f"{type(value).__name__} {_fingerprint(value)}"


def _fingerprint(value: object) -> str:
    """Return a digest of an object; its size where it cannot be written, such as a lock."""
    try:
        return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception:  # foreign objects raise anything
        return str(len(value)) if isinstance(value, Sized) else ""


def _describe(value: Any, path: str, tensors: dict[str, Tensor], depth: int = 0) -> dict[str, Any]:
    match value:
        case None | bool() | int() | float() | str():
            return {"plain": value}
        case Tensor():
            tensors[path] = value.detach().cpu().clone()
            return {"tensor": path}
        case np.ndarray() | np.generic():
            try:
                tensors[path] = torch.from_numpy(np.array(value))
            except (TypeError, ValueError):  # text, dates, 80 bits, another byte order
                return KEPT
            return {"array": path}
        case ArrayRecord():
            arrays = {name: array.numpy() for name, array in value.items()}
            inner = _describe(arrays, path, tensors, depth)
            return KEPT if inner == KEPT else {"record": inner}
        case np.random.Generator():
            return {"generator": value.bit_generator.state}
        case random.Random():
            version, state, gauss = value.getstate()
            return {"random": [version, list(state), gauss]}
    return _describe_nested(value, path, tensors, depth + 1)


def _describe_nested(
    value: Any, path: str, tensors: dict[str, Tensor], depth: int
) -> dict[str, Any]:
    """Describe what holds other values; one that holds anything else stays as built, whole."""
    describe = lambda item, place: _describe(item, f"{path}{place}", tensors, depth)
    if depth > DEEPEST:  # it holds itself
        return KEPT
    match value:
        case deque() if type(value) is deque:
            items = [describe(item, f"/{i}") for i, item in enumerate(value)]
            return KEPT if KEPT in items else {"tuple": items, "longest": value.maxlen}
        case list() | tuple() if not any(isinstance(item, Strategy) for item in value):
            items = [describe(item, f"/{i}") for i, item in enumerate(value)]
            if type(value) not in (list, tuple):
                return KEPT
            return KEPT if KEPT in items else {type(value).__name__: items}
        case dict() if all(isinstance(key, int | float | str | None) for key in value):
            if any(isinstance(item, Strategy) for item in value.values()):
                return KEPT
            # By number too: personalised strategies keep their models by node.
            pairs = [[k, describe(v, f"/{k}")] for k, v in value.items()]
            return KEPT if KEPT in [item for _, item in pairs] else {"dict": pairs}
        case Strategy():
            fields = {k: describe(v, f".{k}") for k, v in vars(value).items()}
            return {"strategy": fields}
    return KEPT


def _rebuild(description: dict[str, Any], tensors: dict[str, Tensor], current: Any) -> Any:
    match description:
        case {"plain": value}:
            return value
        case {"array": path}:
            return tensors[path].numpy().copy()
        case {"tensor": path}:
            return tensors[path].clone()
        case {"record": inner}:
            arrays = _rebuild(inner, tensors, None)
            return ArrayRecord({name: Array(value) for name, value in arrays.items()})
        case {"list": items}:
            return [_rebuild(item, tensors, None) for item in items]
        case {"tuple": items}:
            values = tuple(_rebuild(item, tensors, None) for item in items)
            return deque(values, description["longest"]) if "longest" in description else values
        case {"dict": pairs}:
            values = {key: _rebuild(item, tensors, None) for key, item in pairs}
            if not isinstance(current, dict) or type(current) is dict:
                return values
            current.clear()  # of a kind of its own, such as a defaultdict
            current.update(values)
        case {"generator": state} if isinstance(current, np.random.Generator):
            current.bit_generator.state = state
        case {"random": [version, state, gauss]} if isinstance(current, random.Random):
            current.setstate((version, tuple(state), gauss))
        case {"strategy": fields}:
            for name, field in fields.items():
                setattr(current, name, _rebuild(field, tensors, getattr(current, name, None)))
    return current
