"""Which folder under `runs/` a run is written to, or goes on in."""

from pathlib import Path

from fedsim.config import Config
from fedsim.core.errors import ConfigError, FedsimError
from fedsim.run.run_folder import RunFolder


def new_folder(config: Config) -> Path:
    """Return a folder under `runs/` that does not exist yet, named after the run."""
    parts = (config.data.name, config.model.name, config.federation.strategy)
    name = "-".join(part.replace(":", ".").replace("/", ".") for part in parts)
    candidates = (Path("runs") / (name + (f"-{i}" if i > 1 else "")) for i in range(1, 10**6))
    return next(path for path in candidates if not path.exists())


def newest_unfinished() -> Path:
    """Return the folder under `runs/` that was started last and has rounds left.

    Raises:
        ConfigError: There is none.
    """
    unfinished = []
    for path in Path("runs").glob("*/config.toml"):
        try:
            folder = RunFolder(path.parent)
            with folder.locked():
                done = max(folder.finished_rounds, default=-1)
                if not folder.config.foreign and done < folder.config.federation.rounds:
                    unfinished.append((path.stat().st_mtime, path.parent))
        except FedsimError:  # damaged, or still running
            continue
    if not unfinished:
        raise ConfigError(
            "--resume: must find an unfinished run under runs/, got none; name it with --out"
        )
    return max(unfinished)[1]
