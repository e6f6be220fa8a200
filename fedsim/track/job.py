"""What a tracker's process is told first, and what every tracker does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Status = Literal["finished", "failed", "stopped"]
UNTRAINED = 0  # the first round that there are metrics of


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run to be tracked by one tracker. It is plain data: it travels as JSON.

    Attributes:
        run: Name of the run folder.
        folder: The run's folder of trackers, absolute.
        config: The run's settings, by `section.key`.
        toml: The same as a file.
        project: MLflow's experiment, W&B's project.
        uri: MLflow's server or store, if one was named.
        online: Whether W&B may send to its server.
        id: What the tracker called the run when it began; None for a new one.
        last: The last round that it has; −1 before the first.
    """

    run: str
    folder: str
    config: Mapping[str, Any]
    toml: str
    project: str
    uri: str | None
    online: bool
    id: str | None
    last: int


class Tracking(Protocol):
    """One tracker at work on one run. Whatever it raises ends it, and not the run.

    Attributes:
        id: What the tracker calls the run.
        last: The last round that the tracker itself has, where it can tell; else the job's.
    """

    id: str
    last: int

    def write(self, round_: int, values: Mapping[str, float]) -> None:
        """Keep the metrics of a round, so that they are safe when this returns."""
        ...

    def finish(self, report: str | None, status: Status) -> None:
        """Keep the report, if there is one, and end."""
        ...
