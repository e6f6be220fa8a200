"""The trackers of one run: started with it, given each finished round, ended with it."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedsim.config import Track, dump
from fedsim.run.links import refuse_links
from fedsim.run.run_folder import REPORT, RunFolder
from fedsim.run.setting import flat
from fedsim.track.job import Job, Status
from fedsim.track.process import Process
from fedsim.track.values import values_of

FOLDER, OWN = "track", "wandb"  # in the run folder; in that, the folder of a tracker that links
IMPATIENCE = 10.0  # seconds for trackers of a run that was stopped

OnRound = Callable[[int], None]
"""Called with the number of each round after its commit."""


@contextmanager
def tracked(track: Track | None, folder: RunFolder) -> Iterator[OnRound]:
    """Track a run inside the block; yield what is to be called after each commit.

    Rounds that a tracker lacks from an earlier part of the run are given to it first, and none
    twice. A tracker that fails or hangs is one warning, and the run goes on.

    Args:
        track: The section of the config; None for no trackers.
        folder: The run.
    """
    if track is None:
        yield lambda _: None
        return
    _check_links(folder.path / FOLDER)
    (folder.path / FOLDER).mkdir(exist_ok=True)
    trackers = [_started(name, track, folder) for name in track.to]
    status: Status = "finished"
    try:
        for round_ in folder.finished_rounds:
            _give(folder, trackers, round_)
        yield lambda round_: _give(folder, trackers, round_)
    except Exception:
        status = "failed"
        raise
    except BaseException:
        status = "stopped"
        raise
    finally:
        report = folder.path / REPORT
        for each in trackers:
            ended = report if status == "finished" and report.is_file() else None
            each.process.finish(ended, status)
        patience = min(track.patience, IMPATIENCE) if status == "stopped" else track.patience
        for each in trackers:
            each.process.wait(patience)


@dataclass(frozen=True)
class _Tracker:
    """A tracker's process, and the last round that it had before."""

    process: Process
    last: int


def _started(name: str, track: Track, folder: RunFolder) -> _Tracker:
    before, last = _memory(folder.path / FOLDER / f"{name}.json")
    place = folder.path.absolute()
    job = Job(
        run=place.name,
        folder=str(place / FOLDER),
        config=flat(folder.config),
        toml=dump(folder.config),
        project=track.project,
        uri=track.uri,
        online=track.online,
        id=before,
        last=last,
    )
    return _Tracker(Process(name, job), last)


def _check_links(place: Path) -> None:
    """Refuse links where trackers write, but for those that W&B makes in folders of its own.

    Raises:
        BadRecording: There is one.
    """
    refuse_links(place.parent, [FOLDER] * (place.is_symlink() or place.is_file()))
    names = [path.name for path in place.iterdir()] if place.is_dir() else []
    refuse_links(place, [name for name in names if name != OWN or (place / name).is_symlink()])


def _memory(path: Path) -> tuple[str | None, int]:
    """Return what a tracker called the run, and its last round; nothing for a new run."""
    try:
        memory = json.loads(path.read_bytes())
        return str(memory["id"]), int(memory["last"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, -1


def _give(folder: RunFolder, trackers: Sequence[_Tracker], round_: int) -> None:
    if any(round_ > each.last for each in trackers):
        values = values_of(folder, round_)
        for each in trackers:
            if round_ > each.last:
                each.process.write(round_, values)
