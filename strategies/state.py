"""A strategy's own memory (moments, momentum, current arrays), taken out and put back.

Flower cannot resume a run. This takes whatever plain data a strategy holds in its attributes, so
that it works for strategies we have never seen; functions and other objects stay as built.
"""

from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy
from torch import Tensor


def capture(strategy: Strategy) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a strategy's arrays, and a JSON description of where they and its numbers belong."""
    tensors: dict[str, Tensor] = {}
    return tensors, _describe(strategy, "strategy", tensors)


def restore(strategy: Strategy, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Put captured memory back into a strategy built the same way."""
    _rebuild(description, tensors, strategy)


def _describe(value: Any, path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    match value:
        case None | bool() | int() | float() | str():
            return {"plain": value}
        case np.ndarray() | np.generic():
            tensors[path] = torch.from_numpy(np.array(value))
            return {"array": path}
        case ArrayRecord():
            arrays = {name: array.numpy() for name, array in value.items()}
            return {"record": _describe(arrays, path, tensors)}
        case list() | tuple():
            items = [_describe(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
            return {"list": items}
        case dict() if all(isinstance(key, str) for key in value):
            return {"dict": {k: _describe(v, f"{path}/{k}", tensors) for k, v in value.items()}}
        case Strategy():
            fields = {k: _describe(v, f"{path}.{k}", tensors) for k, v in vars(value).items()}
            return {"strategy": fields}
    return {"kept": True}


def _rebuild(description: dict[str, Any], tensors: dict[str, Tensor], current: Any) -> Any:
    match description:
        case {"plain": value}:
            return value
        case {"array": path}:
            return tensors[path].numpy().copy()
        case {"record": inner}:
            arrays = _rebuild(inner, tensors, None)
            return ArrayRecord({name: Array(value) for name, value in arrays.items()})
        case {"list": items}:
            return [_rebuild(item, tensors, None) for item in items]
        case {"dict": items}:
            return {key: _rebuild(item, tensors, None) for key, item in items.items()}
        case {"strategy": fields}:
            for name, field in fields.items():
                setattr(current, name, _rebuild(field, tensors, getattr(current, name, None)))
    return current
