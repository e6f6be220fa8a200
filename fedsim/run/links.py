"""No link in a run folder is followed: what is written into a run stays in it."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording

LINK = Rule("recording", "files and folders", "must be its own, without links or devices")
CHECKS = (LINK,)
ENTRIES = (
    "config.toml",
    "base.safetensors",
    "rounds",
    "truth",
    "guesses",
    "state",
    "audit",
    "game",
    "leakage.parquet",
    "metrics.parquet",
    "report.html",
    ".lock",
    ".failed",
    ".tables",
)  # of a run; whatever else lies there is neither read nor written


def refuse_links(folder: Path, names: Collection[str] | None = None) -> None:
    """Look at every file and folder below some entries of a folder, all of them by default.

    The folder itself may be a link: its user named it.

    Raises:
        BadRecording: One is a link, a pipe or a device.
    """
    if folder.is_dir():
        with os.scandir(folder) as entries:
            _look(entry for entry in entries if names is None or entry.name in names)


def _look(entries: Iterable[os.DirEntry[str]]) -> None:
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            with os.scandir(entry) as inner:
                _look(inner)
        elif not entry.is_file(follow_symlinks=False):
            raise BadRecording(f"{entry.path}: {LINK.rule}, got a link or device")
