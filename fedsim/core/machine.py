"""What this machine has."""

import ctypes
import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from fedsim.core.errors import ConfigError


def check_cores(key: str, count: int) -> None:
    """Refuse more processes than this machine has cores.

    Args:
        key: Of the config.
        count: Number of processes.

    Raises:
        ConfigError: There are more.
    """
    cores = os.cpu_count() or 1
    if count > cores:
        raise ConfigError(f"{key}: must be at most this machine's {cores} cores, got {count}")


def free_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes new tensors may take: what is free, or what a container has left.

    Args:
        root: Where `proc` and `sys` are.

    Returns:
        None on a system that does not say.
    """
    parts = [_available(root / "proc" / "meminfo"), _left(root / "sys" / "fs" / "cgroup")]
    amounts = [amount for amount in parts if amount is not None]
    if amounts:
        return max(0, min(amounts))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # macOS, Windows
        return None


def _available(path: Path) -> int | None:
    """Return Linux's estimate, with what its caches would give back."""
    try:
        lines = path.read_text().splitlines()
        return next(int(it.split()[1]) * 1024 for it in lines if it.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _left(group: Path) -> int | None:
    """Return what a container's limit leaves (cgroup v2); None without a limit."""
    try:
        most = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        cached = {
            k: int(v) for k, v in map(str.split, (group / "memory.stat").read_text().splitlines())
        }
        return int(most) - used + cached.get("inactive_file", 0)
    except (OSError, ValueError):
        return None


SELDOM = 20_000  # objects more than were freed, before the youngest are looked at
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # glibc's malloc.h
MAPPED = 2**25  # bytes of what is made of new pages each time: the most that glibc comes to itself


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next tensors; glibc only.

    By default each tensor of more than 32 MiB is made of new pages. To get and zero these takes as
    long as the arithmetic on them.
    """
    _malloc({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1})


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory as `keep_freed_memory` does, and give it back to the system at the end."""
    keep_freed_memory()
    try:
        yield
    finally:
        _malloc({M_MMAP_MAX: 2**16, M_MMAP_THRESHOLD: MAPPED, M_TRIM_THRESHOLD: 2 * MAPPED})
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _malloc(options: Mapping[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Let the collector of cycles pass over what is there now, and look at the rest less often.

    What was imported and prepared for a run are 300,000 objects, which it would look at again and
    again. Whoever makes many new ones inside collects them. Of blocks that overlap, in one thread
    or in several, the first changes the collector and the last changes it back. Somebody else's
    frozen objects stay frozen.
    """
    _collector.enter()
    try:
        yield
    finally:
        _collector.leave()


def pass_over() -> None:
    """Inside `seldom_collected`, let the collector pass over what has come since, too."""
    _collector.pass_over()


class _Collector:
    """What `seldom_collected` changed, and how many blocks are open in this process."""

    def __init__(self) -> None:
        self._lock, self._open = Lock(), 0
        self._frozen, self._before = False, gc.get_threshold()

    def enter(self) -> None:
        with self._lock:
            self._open += 1
            if self._open > 1:
                return
            self._frozen, self._before = not gc.get_freeze_count(), gc.get_threshold()
            if self._frozen:
                gc.freeze()
            if 0 < self._before[0] < SELDOM:  # 0 turns it off
                gc.set_threshold(SELDOM, *self._before[1:])

    def pass_over(self) -> None:
        with self._lock:
            if self._open and self._frozen:
                gc.freeze()

    def leave(self) -> None:
        with self._lock:
            self._open -= 1
            if self._open:
                return
            gc.set_threshold(*self._before)
            if self._frozen:
                gc.unfreeze()


_collector = _Collector()
