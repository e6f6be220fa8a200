"""An accelerator for tests on machines without one: its tensors refuse what a GPU's refuse.

A GPU's tensor cannot be mixed with one of the CPU (of more than one number), nor read by NumPy.
Code that forgets a device works on the CPU and fails on a GPU; it has to fail in a test, too.

A tensor of this accelerator calls itself a `meta` tensor and keeps its held in a CPU tensor
inside: kernels are the CPU's, so that results have to be equal to the bit. Torch's own choices do
less: a `meta` tensor and `FakeTensorMode` have no held, so that no code runs which looks at one;
a device of one's own (`privateuse1`) takes compiled code.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten
CROSS = {aten._to_copy.default, aten.copy_.default, aten._copy_from.default}
INDEXED = {  # indices may come from the CPU
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}


WRITTEN_OUT = {  # what torch leaves as a mark on a tensor, which kernels here would not see
    aten._efficientzerotensor.default: aten.zeros.default,
    aten._conj.default: aten._conj_physical.default,
    aten._neg_view.default: aten.neg.default,
}


class Remote(Tensor):
    """A tensor of the accelerator.

    Attributes:
        held: What is in it, on the CPU.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Remote":
        """Put a CPU tensor there."""
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Remote({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what the accelerator does."""
        return _run(func, args, kwargs or {})


class _Accelerator(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Shortcuts(TorchFunctionMode):
    """What torch does for `meta` tensors and for subclasses, past their dispatch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func is torch.tensor and torch.device(options.get("device") or CPU) == DEVICE:
            return torch.tensor(*args, **{**options, "device": CPU}).to(DEVICE)
        if func is Tensor.tolist:
            return args[0].cpu().tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            return func(args[0], _listed(args[1]), *args[2:])
        return func(*args, **options)


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """Give the process the accelerator inside the block; yields its device."""
    with _Shortcuts(), _Accelerator():
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        # Else `Module.double` gives a parameter another type outside, and leaves what is held.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            yield DEVICE
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)


def _listed(index: Any) -> Any:
    """Return an index whose lists are tensors: torch would make empty ones for a `meta` tensor."""
    if isinstance(index, tuple):
        return tuple(_listed(part) for part in index)
    return torch.tensor(index, device=CPU) if isinstance(index, list) else index


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [it for it in tree_flatten((args, kwargs))[0] if isinstance(it, Tensor)]
    remote = [it for it in tensors if isinstance(it, Remote)]
    target = kwargs.get("device")
    if func is not aten.copy_.default:
        _check(func, args, tensors, remote)
    lands = bool(remote) if target is None else torch.device(target) == DEVICE
    lands = lands and func not in (aten._local_scalar_dense.default, aten.equal.default)
    if target is not None:
        kwargs = {**kwargs, "device": CPU}
    func = WRITTEN_OUT.get(func, func)
    inner = tree_map(_inside, (args, kwargs))
    result = func(*inner[0], **inner[1])
    if torch.Tag.inplace_view in func.tags and remote:  # the shape outside follows
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
        return args[0]
    if not lands:
        if func is aten.copy_.default:
            return args[0]
        return result
    written = {id(it.held): it for it in remote}
    return tree_map(lambda it: written[id(it)] if id(it) in written else _outside(it), result)


def _check(func: Any, args: Any, tensors: Sequence[Tensor], remote: Sequence[Tensor]) -> None:
    """Refuse what mixes devices."""
    if not remote or func in CROSS or len(remote) == len(tensors):
        return
    if func in INDEXED:
        tensors = [args[0], *(it for it in args[2:] if isinstance(it, Tensor))]
        if not isinstance(args[0], Remote):
            raise RuntimeError(f"{func}: a CPU tensor is indexed by one of the accelerator")
    local = [it for it in tensors if not isinstance(it, Remote) and it.dim()]
    if local:
        raise RuntimeError(
            f"{func}: tensors must be on one device, got {DEVICE} and cpu "
            f"{[tuple(it.shape) for it in local]}"
        )


def _inside(value: Any) -> Any:
    return value.held if isinstance(value, Remote) else value


def _outside(value: Any) -> Any:
    plain = isinstance(value, Tensor) and not isinstance(value, Remote)
    return Remote(value) if plain else value
