"""Many sets of tensors in one file, such as the uploads of a round: a group for each client.

The file is a sealed safetensors file with arrays `GROUP/NAME`. A group's name is percent-encoded
there, so that the first slash ends it; an array without a slash fills a group up to eight bytes.
The metadata hold, as JSON, `names`: lists of arrays in their order, and `groups`: for each group,
which of these lists is its, and facts about it. Groups are written one after the other as they
come, and are never in memory together; the head in front of them is filled in at the end.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import quote

from torch import Tensor

from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile

GROUPS = Rule(
    "recording", "metadata of a file of groups", "must hold groups, and names of their arrays"
)
CHECKS = (GROUPS,)
_OPEN = 64  # files, at most


class GroupFile(Mapping[str, "Group"]):
    """The groups of one file, in the order in which they were written.

    Their names are read without the groups. All of the file is checked before any of them is used.

    Args:
        path: The file.
        checked: Whether its checksum was compared, or made, a moment ago.

    Raises:
        BadRecording: The file is missing, not as it was written, or holds no groups.
    """

    def __init__(self, path: Path, *, checked: bool = False) -> None:
        self.path, self.file = path, TensorFile(path, checked=checked)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The text about all groups."""
        reserved = ("names", "groups")
        return {key: value for key, value in self.file.metadata.items() if key not in reserved}

    @cached_property
    def _groups(self) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
        """Group → its arrays, and facts about it."""
        try:
            names = [_texts(each) for each in json.loads(self.file.unchecked["names"])]
            groups = json.loads(self.file.unchecked["groups"])
            _texts(groups)
            return {k: (names[n], dict(_pairs(facts))) for k, (n, facts) in groups.items()}
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError):
            raise BadRecording(f"{self.path}: {GROUPS.field} {GROUPS.rule}") from None

    def __getitem__(self, name: str) -> "Group":
        return Group(self, name, *self._groups[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, name: object) -> bool:
        return name in self._groups


class Group(Mapping[str, Tensor]):
    """The tensors of one group, each read when it is asked for, and no other.

    Args:
        file: In which it is.
        name: Its own.
        names: Its arrays, in the order in which they were saved.
        facts: What is said about it.

    Attributes:
        metadata: The facts, and what is said about all groups of the file.

    Raises:
        BadRecording: The file is not as it was written, or an array is missing.
    """

    def __init__(self, file: GroupFile, name: str, names: tuple[str, ...], facts: dict[str, str]):
        self.file, self.name, self.names, self.facts = file, name, names, facts
        self.metadata = {**file.metadata, **facts}  # after a check of the whole file

    @property
    def path(self) -> str:
        """Where it is, for messages."""
        return f"{self.file.path}, {self.name}"

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        try:
            return self.file.file[f"{quote(self.name, safe='')}/{name}"]
        except KeyError:
            raise BadRecording(f"{self.path}: must hold {name}, got none") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def groups_in(path: Path) -> GroupFile:
    """Return the groups of a file; of one that has not changed since, without reading it again.

    Raises:
        BadRecording: The file is missing.
    """
    try:
        state = state_of(path)
    except OSError:
        raise BadRecording(f"{path}: the file is missing") from None
    return _groups_in(path, *state)


def state_of(path: Path) -> tuple[int, ...]:
    """Return what is another for a file that was changed, or that another was renamed to.

    Whoever changes a file can set back when its bytes changed, and not when its entry did.

    Raises:
        OSError: The file is missing.
    """
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def was_written(path: Path, state: tuple[int, ...]) -> None:
    """Take note that this process has written a file, by whose bytes its checksum was made.

    As long as the file stays as it was, this process need not read all of it to compare them.

    Args:
        path: The file.
        state: What `state_of` said of it as it was written.
    """
    _WRITTEN[path] = state
    while len(_WRITTEN) > _OPEN:
        del _WRITTEN[next(iter(_WRITTEN))]


_WRITTEN: dict[Path, tuple[int, ...]] = {}


@lru_cache(maxsize=_OPEN)
def _groups_in(path: Path, *state: int) -> GroupFile:
    return GroupFile(path, checked=_WRITTEN.get(path) == state)


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    texts = tuple(values)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError
    "".join(texts).encode()  # half a surrogate pair is no text
    return texts


def _pairs(facts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for pair in facts.items():
        _texts(pair)
        yield pair
