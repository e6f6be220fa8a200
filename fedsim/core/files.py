"""Files written whole or not at all, and tensors in them without pickle."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from fedsim.core.errors import BadRecording
from fedsim.core.types import Params

NOT_IN_NUMPY = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


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
    """Write tensors and text metadata as one safetensors file, whole or not at all.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    text = {key: str(value) for key, value in metadata.items()}
    text["order"] = json.dumps(list(tensors))  # safetensors itself sorts by dtype and name
    if any(tensor.dtype in NOT_IN_NUMPY for tensor in tensors.values()):
        contents = {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        data = safetensors.torch.save(contents, text)
    else:  # a third of the time, and tensors may share memory
        arrays = {k: np.ascontiguousarray(v.detach().numpy()) for k, v in tensors.items()}
        # ascontiguousarray makes a scalar one-dimensional
        data = safetensors.numpy.save(
            {k: v.reshape(tensors[k].shape) for k, v in arrays.items()}, text
        )
    header, size = _sorted_header(data)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(header)
            file.write(memoryview(data)[size:])

    write_whole(path, write)


def _sorted_header(data: bytes) -> tuple[bytes, int]:
    """Return the header of a safetensors file with sorted metadata, and the old one's size.

    safetensors itself writes metadata in another order in each process; equal runs shall be equal
    in bytes.
    """
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, size


class TensorFile(Mapping[str, Tensor]):
    """The tensors of one safetensors file, each read when it is asked for, and no other.

    The file is opened at the first use.

    Raises:
        BadRecording: The file is missing or is not safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The text beside the tensors."""
        return self._file.metadata() or {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, in the order in which they were saved."""
        stored = self._file.keys()
        try:
            order = json.loads(self.metadata.get("order", "[]"))
            return tuple(order) if set(order) == set(stored) else tuple(stored)
        except (ValueError, TypeError):  # somebody else's metadata
            return tuple(stored)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        try:
            return torch.from_numpy(self._file.get_tensor(name))
        except TypeError:  # a dtype that NumPy does not have
            with safetensors.safe_open(self.path, framework="pt") as file:
                return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _file(self) -> safetensors.safe_open:
        try:
            return safetensors.safe_open(self.path, framework="np")  # three times faster
        except FileNotFoundError:
            raise BadRecording(f"{self.path}: the file is missing") from None
        except (safetensors.SafetensorError, OSError) as error:
            raise BadRecording(f"{self.path}: not a safetensors file ({error})") from None
