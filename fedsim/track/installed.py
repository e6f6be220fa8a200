"""Whether a tracker's package is there, looked up without importing it."""

from importlib.util import find_spec

from fedsim.config import Track
from fedsim.core.errors import ConfigError

NEEDS = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow",), "wandb": ("wandb",)}


def check_installed(track: Track | None) -> None:
    """Refuse a tracker before a run begins.

    Raises:
        ConfigError: Its package is not installed.
    """
    for name in track.to if track else ():
        if missing := [package for package in NEEDS[name] if find_spec(package) is None]:
            raise ConfigError(
                f"track.to: '{name}' needs its package, got no {missing[0]}; install fedsim[{name}]"
            )
