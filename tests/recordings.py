"""Runs that are made once per test run, whichever worker asks first."""

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
from filelock import FileLock

from fedsim import api
from fedsim.config import Config
from fedsim.core.listing import FILE, read_list, write_list
from fedsim.core.seals import digits_in
from fedsim.core.tables import write_table
from fedsim.run.kept_config import sealed_config


def forge_config(run: Path, config: Config) -> None:
    """Put another config into a run, with all its checksums, as somebody else can."""
    (run / "config.toml").write_bytes(sealed_config(config))
    digits = digits_in(run / "config.toml")
    for path in run.glob(f"state/[0-9]*/{FILE}"):
        write_list(path, {**read_list(path), "config.toml": digits})
    for path in run.glob("*.parquet"):
        write_table(path, pq.read_table(path), digits)


class Recordings:
    """Run folders by config; what is returned is shared and must not be changed.

    Args:
        folder: Where they are kept, shared by all workers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, config: Config) -> api.Run:
        """Return the run of a config."""
        name = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]
        path = self._folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                making = path.with_suffix(".making")
                api.run(config, making)
                making.rename(path)
        return api.Run(path)

    def copy(self, config: Config, path: Path) -> api.Run:
        """Return a run of a config that the test may change."""
        shutil.copytree(self.of(config).path, path)
        return api.Run(path)
