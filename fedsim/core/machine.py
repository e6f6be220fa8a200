"""What this machine has."""

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
