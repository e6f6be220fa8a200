"""The runs in a folder as they are now, looked at again only where something changed."""

import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.core.errors import BadRecording
from fedsim.run import marks
from fedsim.run.glance import Glance, glance, is_run, reports_in, runs_in
from fedsim.run.run_folder import REPORT

LOOKED_AT = ("config.toml", "state", "rounds", "leakage.parquet", "metrics.parquet", REPORT)
SHARE = 20  # what is made rests for so many times its cost
LONGEST = 10.0  # seconds of such a rest


@dataclass(frozen=True)
class _Made:
    """Something made of a run.

    Attributes:
        of: The state of the folder that it was made of.
        at, cost: When, and in how many seconds.
    """

    of: object
    value: Any
    at: float
    cost: float


class Shelf:
    """The runs in a folder, by key: their path below it.

    Threads may use it at the same time; one at a time makes something.

    Args:
        root: The folder, or a run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: dict[tuple[str, str], _Made] = {}
        self._lock = threading.Lock()

    def paths(self) -> dict[str, Path]:
        """Return the runs that there are now."""
        return {self._key(path): path for path in runs_in(self.root)}

    def groups(self) -> dict[str, Path]:
        """Return the reports that are of no single run, by folder: of sweeps, audits and games."""
        folders = {self.root} if not is_run(self.root) else set()
        folders |= {it for path in self.paths().values() for it in path.parents if self._holds(it)}
        reports = {folder: folder / REPORT for folder in sorted(folders)}
        over_runs = {self._key(it): file for it, file in reports.items() if file.is_file()}
        return over_runs | {self._key(file.parent): file for file in reports_in(self.root)}

    def glances(self) -> dict[str, Glance]:
        """Return what there is to say of each run, the newest first."""
        glances = {key: self.glance(key, path) for key, path in self.paths().items()}
        return dict(sorted(glances.items(), key=lambda pair: (-pair[1].date, pair[0])))

    def glance(self, key: str, path: Path) -> Glance:
        """Return what there is to say of one run."""
        return self.made("glance", key, path, lambda: glance(path))

    def made(self, kind: str, key: str, path: Path, make: Callable[[], Any]) -> Any:
        """Return what `make` makes of a run: anew only where its folder changed, and not too often.

        What is slow to make is made more seldom, so that looking on costs a run little.
        """
        with self._lock:
            before, state = self._made.get((kind, key)), signature(path)
            if before:
                rest = min(SHARE * before.cost, LONGEST)
                if before.of == state or time.monotonic() < before.at + rest:
                    return before.value
            begun = time.monotonic()
            value = make()
            now = time.monotonic()
            self._made[kind, key] = _Made(state, value, now, now - begun)
            return value

    def read(self, path: Path) -> bytes:
        """Return a file in the folder; no link is followed on the way from it.

        Raises:
            BadRecording: There is one, or no such file.
        """
        try:
            if path.resolve(strict=True) != self.root.resolve() / path.relative_to(self.root):
                raise BadRecording(f"{path}: must be no link")
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise BadRecording(f"{path}: must be a file")
                return file.read()
        except OSError as error:
            raise BadRecording(f"{path}: must be a readable file ({error.strerror})") from None

    def _key(self, path: Path) -> str:
        key = path.relative_to(self.root).as_posix()
        return path.absolute().name if key == "." else key

    def _holds(self, path: Path) -> bool:
        return path != self.root and path.is_relative_to(self.root)


def signature(run: Path) -> tuple[object, ...]:
    """Return what changes when a run goes on, ends, fails, or is attacked."""
    return (marks.is_locked(run), marks.failure(run), *(_moment(run / it) for it in LOOKED_AT))


def version(values: Mapping[str, object]) -> str:
    """Return a short text that changes with what is shown."""
    import hashlib

    return hashlib.blake2b(repr(values).encode("utf-8", "replace"), digest_size=8).hexdigest()


def _moment(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return 0
