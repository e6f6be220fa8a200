"""The section of the config on who trains together, and what the server sees of it."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from fedsim.config.fields import Count, Natural, Positive, Section


class Secure(Section):
    """Secure aggregation: the server learns only sums over a round's clients."""

    threshold: Annotated[float, Field(gt=0.5, le=1, strict=True)] = 2 / 3
    """Share of the clients (with `neighbours`, of each neighbourhood) that must remain."""
    clip: Positive = 8.0
    """Largest absolute value of an upload's entries; larger ones are clipped."""
    modulus_bits: Annotated[int, Field(ge=16, le=62, strict=True)] = 48
    """Sums are of whole numbers modulo 2 to this power."""
    max_examples: Count = 2**16
    """Largest number of examples that a client may have."""
    neighbours: Annotated[int, Field(ge=2, multiple_of=2, strict=True)] | None = None
    """Number of other clients with whom each client shares masks (SecAgg+); all if omitted."""


def _switch(value: object) -> Any:
    """Let true stand for the defaults and false for none."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


Switch = Annotated[
    Secure | None, BeforeValidator(_switch, json_schema_input_type=bool | Secure | None)
]


class Federation(Section):
    """Who trains together, how often, and how the server aggregates."""

    rounds: Count = 10
    """Number of rounds."""
    clients: Count = 8
    """Number of clients."""
    per_round: Count | None = None
    """Number of clients drawn at random in each round; all if omitted."""
    strategy: str = "fedavg"
    """Flower strategy of the server; see `fedsim list strategies`."""
    options: dict[str, Any] = {}  # noqa: RUF012 pydantic copies it
    """Options of the strategy, by name."""
    timeout: Positive = 3600.0
    """Seconds that the server waits for the replies of a round."""
    evaluate_every: Natural = 1
    """The model is tested every so many rounds and after the last one; 0 for never."""
    secure_aggregation: Switch = None
    """Whether the server sees only sums; a table to change the options of the protocol."""

    @model_validator(mode="after")
    def _sampled(self) -> "Federation":
        if self.per_round is not None and self.per_round > self.clients:
            raise ValueError(
                f"per_round: must be at most clients = {self.clients}, got {self.per_round}"
            )
        if self.secure_aggregation and self.sampled < 2:
            raise ValueError("secure_aggregation: must have at least 2 clients per round, got 1")
        return self

    def is_evaluated(self, round_: int) -> bool:
        """Whether the model is tested after a round; after the last one too, unless never."""
        every = self.evaluate_every
        return bool(every) and (round_ % every == 0 or round_ == self.rounds)

    @property
    def sampled(self) -> int:
        """Clients that train in each round."""
        return self.clients if self.per_round is None else self.per_round
