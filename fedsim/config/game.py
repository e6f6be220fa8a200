"""The section of the config that `fedsim game` reads."""

from pydantic import model_validator

from fedsim.config.fields import Count, Counts, Names, Natural, Rate, Section, Share, Shares, Text
from fedsim.core.types import Upload


class Game(Section):
    """Inference games: what is secret, and what the adversary knows.

    The secret is a column of the training rows: for `attribute`, `attribute-known`, `property`
    and `distribution` whether it is `value` (or, for numbers, lies above `above`), for `user` the
    column itself. `membership` and `source` need none.
    """

    play: Names = ("attribute", "property", "distribution")
    column: str | None = None
    value: Text | None = None
    above: float | None = None
    batch_size: Counts = (1, 4, 16, 64)
    rounds: Counts = (1,)
    every: Count = 10
    steps: Natural = 400
    upload: Upload = "gradient"
    trials: Count = 2000
    shadows: Count = 3000
    shares: Shares = (0.3, 0.7)
    count: Count = 1
    own: Share = 1.0
    users: Count = 10
    told_batch_size: Count | None = None
    knows_model: bool = True
    knows_label: bool = True
    knows_others: bool = False
    auxiliary: Count | None = None
    shift: Rate = 0.0

    @model_validator(mode="after")
    def _secret(self) -> "Game":
        if self.value is not None and self.above is not None:
            raise ValueError(f"above: must not stand beside value, got {self.above}")
        if len(set(self.play)) < len(self.play) or not self.play:
            raise ValueError(f"play: must name games, each once, got {', '.join(self.play)}")
        if min(self.trials, self.shadows) < 40:
            least = min(self.trials, self.shadows)
            raise ValueError(f"trials, shadows: must be at least 40 to say anything, got {least}")
        return self
