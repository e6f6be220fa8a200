"""The section of the config of a recording that fedsim did not run."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.config.fields import Count, Natural, Section

Task = Literal["next", "label"]


class Source(Section):
    """Where a tape holds one array of the torch model."""

    name: str
    """Name of the array on tape."""
    axes: tuple[Natural, ...] = ()
    """The tape's axes in the model's order: `[1, 0]` is a transpose; as they are if empty."""


class Foreign(Section):
    """Another app's recording: what its tape does not say. `fedsim attack` writes this table."""

    num_classes: Annotated[int, Field(ge=2, strict=True)]
    """Number of labels."""
    input_shape: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Shape of one example as the model takes it; as the head does if only that is given."""
    vocabulary: Annotated[int, Field(ge=4, strict=True)] | None = None
    """Number of token ids, of a model of texts: 0 is the pad, 1 and 2 may begin and end a text."""
    task: Task = "label"
    """What a model of texts learns: a label of each text, or the next token."""
    head_only: bool = False
    """Whether only the arrays of the head are given, as `weight` and `bias`, and no model."""
    arrays: dict[str, Source] = {}  # noqa: RUF012
    """Name in the model → array on tape; the names on tape are the model's if empty."""
    optimizer: str | None = None
    """The clients' optimizer; attacks read weights as trained by SGD."""
    auxiliary: str | None = None
    """The adversary's own examples, none of them a client's: a data set, or
    `package.module:function`."""
    auxiliary_root: str | None = None
    """Folder of that data set."""
    auxiliary_limit: Count | None = None
    """Number of its training rows, drawn at random; all if omitted."""
    truth: str | None = None
    """Folder of the clients' ground truth; `truth` beside the tape if omitted."""

    @model_validator(mode="after")
    def _next_tokens(self) -> "Foreign":
        if self.task == "next" and self.vocabulary != self.num_classes:
            raise ValueError(
                "vocabulary: must be num_classes where task = 'next', "
                f"got {self.vocabulary} with num_classes = {self.num_classes}"
            )
        return self
