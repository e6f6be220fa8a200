"""No weights are fetched while a model is built: every party builds the same one by itself."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fedsim.core.errors import ConfigError

SWITCH = "HF_HUB_OFFLINE"
CONSTANTS = "huggingface_hub.constants"


@contextmanager
def offline(name: str) -> Iterator[None]:
    """Keep Hugging Face's hub from downloading inside the block; what is cached may be loaded.

    Args:
        name: Of the model, for the sentence.

    Raises:
        ConfigError: Something would have to be fetched.
    """
    setting, before = os.environ.get(SWITCH), getattr(sys.modules.get(CONSTANTS), SWITCH, None)
    os.environ[SWITCH] = "1"  # read where the hub is imported inside
    if before is not None:
        setattr(sys.modules[CONSTANTS], SWITCH, True)
    try:
        yield
    except OSError as error:
        if "huggingface.co" not in str(error):
            raise
        raise ConfigError(
            f"model.name: '{name}' must be built from files that are at hand, got weights that "
            "would have to be fetched; download them on every machine before"
        ) from error
    finally:
        if setting is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = setting
        if CONSTANTS in sys.modules:
            on = (setting or "").upper() in ("1", "ON", "YES", "TRUE")
            setattr(sys.modules[CONSTANTS], SWITCH, on if before is None else before)
