"""The config that a run folder keeps: TOML under its checksum, trusted where this user wrote it."""

from pathlib import Path

from fedsim import config as configs
from fedsim.config import Config
from fedsim.core import seals
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.files import write_whole
from fedsim.run import trust


def sealed_config(config: Config) -> bytes:
    """Return a config as a run keeps it."""
    return seals.sealed(f"# {seals.UNSEALED}\n{configs.dump(config)}".encode())


def write_config(run: Path, config: Config) -> None:
    """Write the config of a run folder, and remember that this user wrote it."""
    data = sealed_config(config)
    write_whole(run / "config.toml", lambda file: file.write_bytes(data))
    trust.remember(run / "config.toml", config)


def read_config(run: Path) -> Config:
    """Return the config of a run folder.

    Raises:
        BadRecording: It is missing or was not written by fedsim.
    """
    seals.read(run / "config.toml")
    try:
        return configs.read(run / "config.toml")
    except ConfigError as error:
        raise BadRecording(str(error)) from None
