"""Writes groups of tensors into one file, as `fedsim.core.groups` reads them."""

import json
import os
import weakref
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core import seals
from fedsim.core.blocks import ALIGNED, Block, Layout, Place, Row, layout_of
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.files import HEAD, KINDS, MOST_HEAD, PIECE, dense, memory_of, write_all
from fedsim.core.types import Params

Facts = Mapping[str, str | int | float]
_ROOM = 24  # for the name of a group: a number of 64 bits has 20 digits
_OFFSETS = 30  # digits of a begin and an end
_ENDS = 6  # quotes, a comma and brackets around them
_BLOCK = 2**20


class GroupWriter:
    """Writes groups of tensors into one file, which is there, whole, once it is closed.

    Equal groups in one order give equal bytes.

    Args:
        path: The file.
        metadata: Text about all groups.
        expected: How many will come. With more, or with long names, closing copies the file.
    """

    def __init__(self, path: Path, metadata: Facts, expected: int = 1) -> None:
        self.path, self.metadata, self.expected = path, metadata, expected
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._groups: dict[str, tuple[int, dict[str, str]]] = {}
        self._names: dict[tuple[str, ...], int] = {}
        self._fields: list[str] = []
        self._forms: dict[object, _Form] = {}
        self._waiting: tuple[Block, int, int] | None = None  # rows, from the one to the other
        self._file, self._start, self._size, self._checksum = -1, 0, 0, 0

    def add(self, name: str, tensors: Params, facts: Facts) -> "Written":
        """Write a group; rows of a block at the latest when others come, or the file is closed.

        Args:
            name: Any text; no other group's.
            tensors: Of any strides, on the CPU.
            facts: About the group; written as text.

        Returns:
            What reads its arrays again.

        Raises:
            OSError: The disk is full or the folder cannot be written; nothing is left behind.
            ConfigError: As many such groups as are expected make a head that nobody reads.
        """
        said = {key: str(value) for key, value in facts.items()}
        row = tensors if isinstance(tensors, Row) else None
        arrays = row or {key: dense(it.detach()) for key, it in tensors.items()}
        form = self._form(arrays)
        if self._file < 0:
            self._open(self._room(arrays, said))
        written = Written(self, self._size, form.layout)
        fields = form.fields(quote(name, safe=""), len(self._groups), self._size)
        self._fields += fields
        if not self._groups:
            self._check_head(self.expected * sum(map(len, fields)))
        if row is None:
            parts = [memory_of(arrays[key]) for key in form.layout.places]
            self._write([*parts, memoryview(bytes(form.layout.lack))])
        else:
            self._wait(row.block, row.place)
        self._size += form.layout.size
        self._groups[name] = self._names.setdefault(form.layout.names, len(self._names)), said
        return written

    def _wait(self, block: Block, place: int) -> None:
        """Let a row wait for its neighbours, until all together are worth a call."""
        waiting = self._waiting
        if waiting is not None and waiting[0] is block and waiting[2] == place:
            first = waiting[1]
        else:
            self._write([])
            first = place
        self._waiting = block, first, place + 1
        if (place + 1 - first) * block.layout.size >= PIECE:
            self._write([])

    def _write(self, parts: Sequence[memoryview]) -> None:
        """Write the rows that wait, and more."""
        waiting, self._waiting = self._waiting, None
        rows = [] if waiting is None else [waiting[0].bytes_of(*waiting[1:])]
        try:
            write_all(self._file, [*rows, *parts])
        except BaseException:
            self.discard()
            raise
        for part in (*rows, *parts):
            self._checksum = zlib.crc32(part, self._checksum)

    def close(self) -> None:
        """Fill in the head, and give the file its name; without groups there is none.

        Raises:
            OSError: The disk is full or the folder cannot be written; nothing is left behind.
            ConfigError: There are more names and shapes than anybody reads.
        """
        if self._file < 0:
            return
        self._write([])
        try:
            head = self._head()
            self._check_head(len(head))
            if len(head) > self._start:
                self._move(len(head))
            size = self._start - 8
            head = size.to_bytes(8, "little") + head[8:].ljust(size)
            checksum = seals.combined(zlib.crc32(head), self._checksum, self._size)
            head = head.replace(seals.UNSEALED.encode(), seals.MARK + seals.digits_of(checksum), 1)
            os.lseek(self._file, 0, os.SEEK_SET)
            write_all(self._file, [memoryview(head)])
            self._part.replace(self.path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave nothing behind of a file that is not closed."""
        self._waiting = None
        self._part.unlink(missing_ok=True)

    def read(self, begin: int, dtype: torch.dtype, shape: torch.Size) -> Tensor:
        """Return an array that was written, also before the file is closed.

        Raises:
            BadRecording: Somebody has cut the file.
        """
        self._write([])
        data = torch.empty(shape, dtype=dtype)
        memory, place = memory_of(data), self._start + begin
        while memory.nbytes:
            count = os.preadv(self._file, [memory], place)
            if not count:
                raise BadRecording(f"{self.path}: must have {place} bytes, got fewer")
            memory, place = memory[count:], place + count
        return data

    def _open(self, room: int) -> None:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._part.unlink(missing_ok=True)  # a link of that name would be written through
        self._file = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        weakref.finalize(self, os.close, self._file)
        self._start = os.lseek(self._file, room, os.SEEK_SET)

    def _room(self, arrays: Params, facts: Mapping[str, str]) -> int:
        """Return bytes for the head, by the first group."""
        names = [len(json.dumps(key)) for key in arrays]
        fields = sum(
            length + _ROOM + _OFFSETS + len(_tail("F8_E4M3", list(value.shape))) + _ENDS
            for length, value in zip(names, arrays.values(), strict=True)
        )
        facts_of = _ROOM + len(json.dumps(json.dumps([0, facts])))
        room = 512 + len(json.dumps(self.metadata)) + 2 * sum(names)
        room += self.expected * (fields + facts_of)
        return min(room + -room % ALIGNED, MOST_HEAD)

    def _form(self, arrays: Params) -> "_Form":
        """Return how such arrays lie in the file, and what the head says of each."""
        if isinstance(arrays, Row):
            key: object = id(arrays.block.layout)  # which the form keeps alive
        else:
            key = tuple((name, value.dtype, value.shape) for name, value in arrays.items())
        if (form := self._forms.get(key)) is None:
            layout = arrays.block.layout if isinstance(arrays, Row) else layout_of(arrays)
            form = self._forms[key] = _Form.of(layout)
        return form

    def _head(self) -> bytes:
        text = {
            "checksum": seals.UNSEALED,
            **{key: str(value) for key, value in self.metadata.items()},
            "names": json.dumps(list(self._names)),
            "groups": json.dumps(self._groups),
        }
        fields = (f'"__metadata__":{json.dumps(text)}', *self._fields)
        data = f"{{{','.join(fields)}}}".encode()
        return bytes(8) + data + b" " * (-len(data) % ALIGNED)

    def _check_head(self, size: int) -> None:
        if size <= MOST_HEAD:
            return
        self.discard()
        groups = max(self.expected, len(self._groups))
        raise ConfigError(
            f"record.clients: the {HEAD.field} {HEAD.rule}, got {size >> 20} MiB of names and "
            f"shapes for {groups} clients in {self.path.name}; name fewer of them"
        )

    def _move(self, start: int) -> None:
        """Write the groups again behind a longer head."""
        before, self._start = self._start, start
        for begin in range(before + self._size - 1, before - 1, -_BLOCK):  # from the end
            first = max(before, begin + 1 - _BLOCK)
            block = os.pread(self._file, begin + 1 - first, first)
            os.lseek(self._file, first + start - before, os.SEEK_SET)
            write_all(self._file, [memoryview(block)])


@dataclass(frozen=True)
class Written:
    """A group that was written: its arrays, each read when it is asked for.

    Attributes:
        writer: Of the file.
        begin: Where the group begins behind the head.
        layout: Of its arrays.
    """

    writer: GroupWriter
    begin: int
    layout: Layout

    def __call__(self, name: str) -> NDArray:
        """Return an array."""
        place = self.layout.places[name]
        return self.writer.read(self.begin + place.begin, place.dtype, place.shape).numpy()


@dataclass(frozen=True)
class _Form:
    """How groups of one form stand in a file.

    Attributes:
        layout: Of the arrays.
        tails: What the head says of each from the slash to its offsets, and these in the group.
        filler: The same of the bytes that fill a group up, from the end of their name; empty
            where there are none.
    """

    layout: Layout
    tails: Sequence[tuple[str, int, int]]
    filler: str

    @classmethod
    def of(cls, layout: Layout) -> "_Form":
        """Return the form of groups that lie so."""
        tails = [(_tail_of(key, it), it.begin, it.end) for key, it in layout.places.items()]
        return cls(layout, tails, _tail("U8", [layout.lack]) if layout.lack else "")

    def fields(self, prefix: str, number: int, begin: int) -> list[str]:
        """Return what the head says of a group's arrays."""
        of = [f'"{prefix}{tail}{begin + a},{begin + b}]}}' for tail, a, b in self.tails]
        if self.filler:
            end = begin + self.layout.size
            of.append(f'"{number}{self.filler}{end - self.layout.lack},{end}]}}')
        return of


def save_groups(path: Path, groups: Mapping[str, tuple[Params, Facts]], metadata: Facts) -> None:
    """Write groups of tensors, each with facts about it, as one file, whole or not at all.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    writer = GroupWriter(path, metadata, len(groups))
    for name, (tensors, facts) in groups.items():
        writer.add(name, tensors, facts)
    writer.close()


def _tail_of(key: str, place: Place) -> str:
    """Return what the head says of an array of a group, from the slash to its offsets."""
    name = json.dumps(key)[1:-1]
    return f"/{name}{_tail(KINDS[place.dtype], list(place.shape))}"


def _tail(kind: str, shape: list[int]) -> str:
    """Return what the head says of an array, from the end of its name to its offsets."""
    return f'":{{"dtype":"{kind}","shape":{shape},"data_offsets":['
