"""What this machine has."""

import ctypes
import os

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


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next tensors; glibc only.

    By default each tensor of more than 32 MiB is made of new pages. To get and zero these takes as
    long as the arithmetic on them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
