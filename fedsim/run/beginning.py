"""The beginning of a run: a mistake that shows in its first round leaves no folder behind."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsim.config import Config
from fedsim.run.run_folder import RunFolder

Create = Callable[[Path, Config], RunFolder]
"""`RunFolder.create`."""


@contextmanager
def beginning() -> Iterator[Create]:
    """Yield how to create a run folder that is taken back if the block fails in its first round.

    The same command then works once the mistake is mended. A run that its user stops stays, to be
    gone on with.
    """
    created: list[tuple[RunFolder, set[Path], list[Path]]] = []

    def create(path: Path, config: Config) -> RunFolder:
        before = set(path.iterdir()) if path.is_dir() else set()
        absent = [folder for folder in (path, *path.parents) if not folder.exists()]
        folder = RunFolder.create(path, config)
        created.append((folder, before, absent))
        return folder

    try:
        yield create
    except Exception:
        for folder, before, absent in created:
            if max(folder.finished_rounds, default=0) < 1:
                _take_back(folder.path, before, absent)
        raise


def _take_back(path: Path, before: set[Path], absent: list[Path]) -> None:
    """Delete what was not in a folder before, and the folders that were not there."""
    for entry in set(path.iterdir()) - before:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    for folder in absent:
        try:
            folder.rmdir()
        except OSError:  # another run began beside it
            return
