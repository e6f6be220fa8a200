"""The section of the config of a recording that fedsim did not run."""

from typing import Annotated

from pydantic import Field

from fedsim.config.fields import Count, Section


class Foreign(Section):
    """What was told of another app's recording: what nothing on its tape says.

    Attributes:
        num_classes: Number of labels.
        input_shape: Shape of one example as the model takes it.
        auxiliary: The adversary's own examples: a data set, or `package.module:function`; none of
            them may be a client's.
        auxiliary_root: The folder of that data set.
        auxiliary_limit: So many of its training rows, drawn at random; all without.
        truth: The folder of the clients' ground truth; `truth` beside the tape without.
    """

    num_classes: Annotated[int, Field(ge=2, strict=True)]
    input_shape: Annotated[tuple[Count, ...], Field(min_length=1)]
    auxiliary: str | None = None
    auxiliary_root: str | None = None
    auxiliary_limit: Count | None = None
    truth: str | None = None
