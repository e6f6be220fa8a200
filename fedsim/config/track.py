"""The section of the config on trackers: other programs that show a run's metrics."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fedsim.config.fields import Positive, Section, split

Tracker = Literal["tensorboard", "mlflow", "wandb"]


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"each tracker must stand once, got {', '.join(names)}")
    return names


Trackers = Annotated[
    tuple[Tracker, ...],
    Field(min_length=1),
    AfterValidator(_once),
    BeforeValidator(split, json_schema_input_type=str | list[Tracker]),
]


class Track(Section):
    """Trackers that get every round's metrics, the config and the report."""

    to: Trackers
    """`tensorboard`, `mlflow` or `wandb`; each is an extra of the same name."""
    project: Annotated[str, Field(min_length=1)] = "fedsim"
    """Name of MLflow's experiment and of W&B's project."""
    uri: str | None = None
    """MLflow's server or store; `$MLFLOW_TRACKING_URI`, or `mlflow.db` beside the run folder, if
    omitted."""
    online: bool = False
    """Whether W&B sends to its server; else it writes into the run folder, for `wandb sync`."""
    patience: Positive = 60.0
    """Seconds that a run waits at its end for its trackers."""
