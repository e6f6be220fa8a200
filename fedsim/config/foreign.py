"""The section of the config of a recording that fedsim did not run."""

from typing import Annotated

from pydantic import Field

from fedsim.config.fields import Count, Section


class Foreign(Section):
    """Another app's recording: what its tape does not say. `fedsim attack` writes this table."""

    num_classes: Annotated[int, Field(ge=2, strict=True)]
    """Number of labels."""
    input_shape: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Shape of one example as the model takes it."""
    auxiliary: str | None = None
    """The adversary's own examples, none of them a client's: a data set, or
    `package.module:function`."""
    auxiliary_root: str | None = None
    """Folder of that data set."""
    auxiliary_limit: Count | None = None
    """Number of its training rows, drawn at random; all if omitted."""
    truth: str | None = None
    """Folder of the clients' ground truth; `truth` beside the tape if omitted."""
