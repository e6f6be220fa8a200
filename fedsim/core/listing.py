"""Lists of files with their checksums, so that a lost, added or foreign file is noticed.

A list stands beside what it lists, as sealed JSON: path below a folder → the digits of its seal.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from fedsim.core import seals
from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording
from fedsim.core.files import write_whole

LISTED = Rule(
    "recording", "files of a round", "must be those that were written, no more and no less"
)
CHECKS = (LISTED,)
FILE = "files.json"


def files_below(
    root: Path, folders: Iterable[str], without: Collection[str] = ()
) -> dict[str, str]:
    """Return all files in some folders below `root`, each with the digits of its seal.

    Hidden files, lists themselves and files of the names `without` are left out. A folder that does
    not exist has none.

    Raises:
        BadRecording: A file has no seal.
    """
    paths = [
        path
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file() and path.name not in (FILE, *without) and not path.name.startswith(".")
    ]
    return {path.relative_to(root).as_posix(): seals.digits_in(path) for path in sorted(paths)}


def write_list(path: Path, files: Mapping[str, str]) -> None:
    """Write a list, whole or not at all."""
    data = json.dumps({"checksum": seals.UNSEALED, "files": dict(files)}, indent=0).encode()
    write_whole(path, lambda temporary: temporary.write_bytes(seals.sealed(data)))


def read_list(path: Path) -> dict[str, str]:
    """Return what `write_list` wrote.

    Raises:
        BadRecording: The file is missing or damaged.
    """
    data = seals.read(path)
    try:
        files = json.loads(data)["files"]
        if not all(isinstance(text, str) for item in files.items() for text in item):
            raise ValueError("paths and digits must be texts")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadRecording(f"{path}: must be a list of files ({error})") from None
    return files


def compare(path: Path, listed: Mapping[str, str], present: Mapping[str, str]) -> None:
    """Refuse files that are not as a list has them.

    Args:
        path: The list's.
        listed: What it says.
        present: What there is.

    Raises:
        BadRecording: One differs.
    """
    if listed == present:
        return
    name = min(name for name in {*listed, *present} if listed.get(name) != present.get(name))
    what = "other contents" if name in listed and name in present else "another file"
    if name not in present:
        what = "none"
    raise BadRecording(f"{path}: {LISTED.field} {LISTED.rule}, got {what} at {name}")
