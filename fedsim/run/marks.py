"""The two marks of a process in a run folder: its lock, and why the last one failed."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedsim.core.errors import RunStopped, plain
from fedsim.core.files import write_whole

LOCK, FAILED = ".lock", ".failed"
PAUSES = (0.02, 0.05, 0.1)  # seconds between tries: `is_locked` holds the lock for an instant
LONGEST = 4096  # bytes of a reason


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep every other process from writing into a run folder inside the block.

    Raises:
        RunStopped: Another process is at it.
    """
    with (run / LOCK).open("a") as file:
        for pause in PAUSES:
            if _lock(file.fileno(), fcntl.LOCK_EX):
                break
            time.sleep(pause)
        else:
            raise RunStopped(f"{run}: must be free, another process runs it")
        yield


def is_locked(run: Path) -> bool:
    """Return whether a process runs it; nothing is written."""
    try:
        with (run / LOCK).open("rb") as file:
            return not _lock(file.fileno(), fcntl.LOCK_SH)
    except OSError:  # it never ran here, or is not this user's to look at
        return False


@contextmanager
def failing(run: Path) -> Iterator[None]:
    """Keep in a run folder why what runs inside the block fails; an earlier failure is forgotten.

    Ctrl-C and a killed process are no failure. A run that left nothing keeps no reason.
    """
    (run / FAILED).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        if (run / "config.toml").exists():
            reason = plain(error) or type(error).__name__
            with suppress(OSError):  # the disk may be full
                write_whole(run / FAILED, lambda file: file.write_text(reason, encoding="utf-8"))
        raise


def failure(run: Path) -> str | None:
    """Return why a run failed, in one line; None where it did not."""
    try:
        with (run / FAILED).open("rb") as file:
            return plain(file.read(LONGEST).decode("utf-8", "replace"))
    except OSError:
        return None


def _lock(descriptor: int, kind: int) -> bool:
    """Return whether a lock could be taken; it is given back when the file is closed."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
