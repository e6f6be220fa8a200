"""A copy of a model, as `copy.deepcopy` makes it: in a third of its time where modules are plain.

Plain is a module of a class that leaves copying to Python and PyTorch, whose attributes are
parameters, buffers, plain modules, numbers, text, and containers of these. Of a model with any
other module the whole is copied by `copy.deepcopy`.
"""

import copy
from collections import OrderedDict
from functools import lru_cache, partial
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any

import torch
from torch import Tensor, nn

ATOMS = frozenset(
    {bool, int, float, complex, str, bytes, NoneType, type, FunctionType, BuiltinFunctionType}
    | {torch.dtype, torch.device}
)
KEEP_NOTHING = frozenset(
    {nn.Sequential, nn.Linear, nn.Flatten, nn.Identity, nn.Conv1d, nn.Conv2d, nn.MaxPool2d}
    | {nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.GELU}
    | {nn.LayerNorm, nn.GroupNorm}
)  # layers whose forward leaves nothing in them, and draws nothing
_OWN = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__")
_COMPILED = "_compiled_call_impl"  # what PyTorch leaves out of a state


class _NotPlain(Exception):
    """Something that only `copy.deepcopy` copies as it does."""


def copied(model: nn.Module) -> nn.Module:
    """Return what `copy.deepcopy(model)` returns.

    Raises:
        Exception: Whatever a class of the model raises in its own copying.
    """
    try:
        return _module(model, {})
    except _NotPlain:
        return copy.deepcopy(model)


def keeps_nothing(model: nn.Module) -> bool:
    """Return whether training draws nothing and leaves nothing in a model but its state.

    The model can be used again. So it is if all layers are PyTorch's own that keep and draw
    nothing, and no hooks are on them but the guard's.
    """
    return all(
        type(module) in KEEP_NOTHING
        and "forward" not in vars(module)
        and all(type(hook) is partial and _is_guards(hook) for hook in _hooks_of(module))
        for module in model.modules()
    )


def _is_guards(hook: partial[Any]) -> bool:
    return getattr(hook.func, "__module__", "") == "fedsim.models.guard"


def _hooks_of(module: nn.Module) -> list[Any]:
    kept = (value for name, value in vars(module).items() if name.endswith("_hooks"))
    return [hook for hooks in kept if isinstance(hooks, dict) for hook in hooks.values()]


def _module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    if id(module) in memo:
        return memo[id(module)]
    if not _is_plain(type(module)) or _COMPILED in vars(module):
        raise _NotPlain
    twin = memo[id(module)] = type(module).__new__(type(module))
    attributes = vars(twin)
    for name, value in vars(module).items():
        kind = type(value)
        if kind in ATOMS:
            attributes[name] = value
        elif (kind is dict or kind is OrderedDict) and not value and id(value) not in memo:
            memo[id(value)], attributes[name] = value, kind()  # most of what a module holds
        else:
            attributes[name] = _container(value, memo)
    return twin


def _container(value: Any, memo: dict[int, Any]) -> Any:
    """Return the copy of an attribute that is no atom."""
    kind = type(value)
    if kind is tuple:
        if all(type(it) in ATOMS for it in value):
            return value
        raise _NotPlain
    if id(value) in memo:  # two attributes share it
        raise _NotPlain
    memo[id(value)] = value
    if kind is dict or kind is OrderedDict:
        if not ATOMS.issuperset(map(type, value)):
            raise _NotPlain
        return kind([(key, _value(it, memo)) for key, it in value.items()])
    if kind in (list, set) and all(type(it) in ATOMS for it in value):
        return kind(value)
    raise _NotPlain


def _value(value: Any, memo: dict[int, Any]) -> Any:
    """Return the copy of what a dictionary holds."""
    if type(value) in ATOMS:
        return value
    if isinstance(value, Tensor):
        return _tensor(value, memo)
    if isinstance(value, nn.Module):
        return _module(value, memo)
    if type(value) is partial:  # the guard's hook
        parts = (value.func, *value.args, *value.keywords.values())
        if all(type(it) in ATOMS for it in parts) and not vars(value):
            return partial(value.func, *value.args, **value.keywords)
    raise _NotPlain


def _tensor(value: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(value) in memo:
        return memo[id(value)]
    if type(value) is nn.Parameter:
        twin = nn.Parameter(
            value.data.clone(memory_format=torch.preserve_format), value.requires_grad
        )
    elif _is_alone(value, memo):
        twin = value.clone()
    else:
        raise _NotPlain
    memo[id(value)] = twin
    return twin


def _is_alone(value: Tensor, memo: dict[int, Any]) -> bool:
    """Return whether a tensor is a constant with a memory to itself, and with nothing attached."""
    if type(value) is not Tensor or value.requires_grad or value.grad is not None:
        return False
    if value.layout is not torch.strided or not value.is_contiguous() or vars(value):
        return False
    memory = value.untyped_storage()
    shared = memo.setdefault(-1, set())
    if memory.nbytes() != value.nbytes or memory.data_ptr() in shared:
        return False
    shared.add(memory.data_ptr())
    return True


@lru_cache(maxsize=256)
def _is_plain(kind: type[nn.Module]) -> bool:
    """Return whether a class leaves copying to Python and PyTorch."""
    if any(hasattr(kind, name) for name in _OWN):
        return False
    if kind.__reduce__ is not object.__reduce__ or kind.__reduce_ex__ is not object.__reduce_ex__:
        return False
    if any(vars(base).get("__slots__") for base in kind.__mro__):
        return False
    # PyTorch's own leave out what is compiled, and fill in what older versions lacked.
    states = (kind.__getstate__, kind.__setstate__)
    built_in = all(getattr(it, "__module__", "torch.nn.").startswith("torch.nn.") for it in states)
    return built_in and kind.__new__ is object.__new__
