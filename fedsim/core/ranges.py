"""Types of options that state their range, which a config is held to before anything starts.

A function that is called from Python checks its options by itself.
"""

from typing import Annotated

from pydantic import Field

AtLeastOne = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]
