"""The section of the config on who trains together, and what the server sees of it."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from fedsim.config.fields import Count, Natural, Positive, Section


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


class Federation(Section):
    """Who trains together, how often, and how the server aggregates."""

    rounds: Count = 10
    clients: Count = 10
    per_round: Count | None = None
    strategy: str = "fedavg"
    options: dict[str, Any] = {}  # noqa: RUF012 pydantic copies it
    timeout: Positive = 3600.0
    evaluate_every: Natural = 1
    secure_aggregation: Switch = None

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
