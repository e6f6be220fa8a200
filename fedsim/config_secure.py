"""The section of the config of simulated secure aggregation."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from fedsim.config_types import Count, Positive, Section


class Secure(Section):
    """Secure aggregation: the server learns sums over a round's clients only.

    Attributes:
        threshold: Share of the clients (with `neighbours`, of each neighbourhood) that must remain.
        clip: Largest absolute value of an upload's entries.
        modulus_bits: Sums are of whole numbers modulo 2 to this power.
        max_examples: Largest number of examples of a client.
        neighbours: With how many others a client shares masks (SecAgg+); all without.
    """

    threshold: Annotated[float, Field(gt=0.5, le=1, strict=True)] = 2 / 3
    clip: Positive = 8.0
    modulus_bits: Annotated[int, Field(ge=16, le=62, strict=True)] = 48
    max_examples: Count = 2**16
    neighbours: Annotated[int, Field(ge=2, multiple_of=2, strict=True)] | None = None


def _switch(value: object) -> Any:
    """Let true stand for the defaults and false for none."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


Switch = Annotated[Secure | None, BeforeValidator(_switch)]
