"""Files written whole or not at all, and tensors in them without pickle."""

import json
import os
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from fedsim.core import seals
from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording
from fedsim.core.types import Params

MOST_HEAD = 2**26  # bytes of a file's names, shapes and metadata
MOST_BUFFERS = os.sysconf("SC_IOV_MAX")  # of one call
PIECE = 2**19  # bytes of one call; Linux takes up to five times as long for a byte of longer ones
HEAD = Rule("recording", "header of a safetensors file", "must have at most 64 MiB")
CHECKS = (HEAD,)
KINDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

_BUFFERS = frozenset({torch.float64, torch.float32, torch.float16, torch.int64, torch.int32})


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary name beside `path`, then rename it to `path`.

    A process killed at any instant leaves the old file, the new one, or none: never a part.

    Raises:
        OSError: The disk is full or the folder cannot be written; no part is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            temporary.unlink(missing_ok=True)  # a link of that name would be written through
            write(temporary)
        except FileNotFoundError:  # the folder's first file
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_tensors(path: Path, tensors: Params, metadata: Mapping[str, object]) -> None:
    """Write tensors and text metadata as one sealed safetensors file, whole or not at all.

    The tensors' own memory goes to the system in as few calls as it allows, without a copy. Equal
    tensors and metadata give equal bytes. (The library puts metadata in any order.)

    Source: the format's description at https://huggingface.co/docs/safetensors.

    Args:
        path: The file.
        tensors: Of any strides, on the CPU; little-endian in the file on every machine.
        metadata: Written as text, sorted by key.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    contiguous = {name: dense(value.detach()) for name, value in tensors.items()}
    # Wide types first, so that all values are aligned.
    names = sorted(contiguous, key=lambda name: -contiguous[name].element_size())
    head = _head(contiguous, names, metadata)
    parts = [memory_of(contiguous[name]) for name in names]
    checksum = zlib.crc32(head)
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    head = head.replace(seals.UNSEALED.encode(), seals.MARK + seals.digits_of(checksum), 1)

    def write(temporary: Path) -> None:
        with temporary.open("wb", buffering=0) as file:
            write_all(file.fileno(), [memoryview(head), *parts])

    write_whole(path, write)


def write_all(descriptor: int, buffers: Iterable[memoryview]) -> None:
    """Write buffers one after the other; a call may take some of them, or a part of one."""
    waiting = deque(piece for buffer in buffers for piece in pieces(buffer))
    while waiting:
        written = os.writev(descriptor, _next(waiting))
        while waiting and written >= waiting[0].nbytes:
            written -= waiting.popleft().nbytes
        if written:
            waiting[0] = waiting[0][written:]


def pieces(buffer: memoryview) -> Iterator[memoryview]:
    """Yield the parts of a buffer of bytes that are written, or summed up, at a time."""
    if 0 < buffer.nbytes <= PIECE:
        yield buffer
        return
    for begin in range(0, buffer.nbytes, PIECE):
        yield buffer[begin : begin + PIECE]


def _next(waiting: Iterable[memoryview]) -> list[memoryview]:
    """Return the first of some pieces that one call takes."""
    taken, size = [], 0
    for piece in islice(waiting, MOST_BUFFERS):
        size += piece.nbytes
        if taken and size > PIECE:
            break
        taken.append(piece)
    return taken


def memory_of(value: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor; on a big-endian machine a copy, little-endian."""
    if value.dtype in _BUFFERS and value.numel() and sys.byteorder == "little":
        return value.numpy().reshape(-1).data.cast("B")  # a third of the time
    values = value.reshape(-1).view(torch.uint8)
    if sys.byteorder == "big":
        width = value.element_size() // (2 if value.is_complex() else 1)
        values = values.reshape(-1, width).flip(1).reshape(-1)
    return values.numpy().data


def dense(value: Tensor) -> Tensor:
    """Return values one after the other; a single one may have any stride and be contiguous."""
    return value.contiguous() if value.numel() > 1 else value.new_empty(value.shape).copy_(value)


def _head(tensors: Params, names: Sequence[str], metadata: Mapping[str, object]) -> bytes:
    """Return what stands in a safetensors file before the values, with an empty seal."""
    text = {"checksum": seals.UNSEALED, **{key: str(metadata[key]) for key in sorted(metadata)}}
    text["order"] = json.dumps(list(tensors))  # that of the file is by width
    fields: dict[str, object] = {"__metadata__": text}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        kind = KINDS[tensors[name].dtype]
        fields[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    data = json.dumps(fields, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data


class TensorFile(Mapping[str, Tensor]):
    """The tensors of one safetensors file, each read when it is asked for, and no other.

    The file is opened at the first use, and all of it is checked then.

    Args:
        path: The file.
        checked: Whether it was checked before.

    Raises:
        BadRecording: The file is missing, not as it was written, or not safetensors.
    """

    def __init__(self, path: Path, *, checked: bool = False) -> None:
        self.path, self._checked = path, checked

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The text beside the tensors."""
        text = self._file.metadata() or {}
        return {key: value for key, value in text.items() if key != "checksum"}

    @cached_property
    def unchecked(self) -> dict[str, str]:
        """The text beside the tensors, of which nothing but the head of the file is read."""
        return self._handle.metadata() or {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, in the order in which they were saved."""
        stored = self._file.keys()
        try:
            order = json.loads(self.metadata.get("order", "[]"))
            return tuple(order) if sorted(order) == sorted(stored) else tuple(stored)
        except (ValueError, TypeError, RecursionError):  # somebody else's metadata
            return tuple(stored)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._stored:
            raise KeyError(name)
        try:
            return torch.from_numpy(self._file.get_tensor(name))
        except TypeError:  # a dtype that NumPy does not have
            return self._opened("pt").get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _file(self) -> safetensors.safe_open:
        handle = self._handle
        if not self._checked:
            seals.check(self.path)
        return handle

    @cached_property
    def _handle(self) -> safetensors.safe_open:
        return self._opened("np")  # three times faster

    @cached_property
    def _stored(self) -> frozenset[str]:
        return frozenset(self._file.keys())

    def _opened(self, framework: str) -> safetensors.safe_open:
        try:
            with self.path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
            if size > MOST_HEAD:
                seals.check(self.path)  # says more where it is damaged
                raise BadRecording(f"{self.path}: {HEAD.field} {HEAD.rule}, got {size} bytes")
            return safetensors.safe_open(self.path, framework=framework)
        except (safetensors.SafetensorError, OSError) as error:
            seals.check(self.path)
            raise BadRecording(f"{self.path}: not a safetensors file ({error})") from None
