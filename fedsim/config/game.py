"""The section of the config that `fedsim game` reads."""

from pydantic import model_validator

from fedsim.config.fields import (
    Count,
    Counts,
    Finite,
    Names,
    Natural,
    Rate,
    Section,
    Share,
    Shares,
    Text,
)
from fedsim.core.local_training import Upload


class Game(Section):
    """Inference games: what is secret, and what the adversary knows.

    The secret is a column of the training rows. For `attribute`, `attribute-known`, `property`
    and `distribution` the question is whether it is `value` (or, for numbers, lies above `above`).
    For `user` it is the column itself. `membership` and `source` need none.
    """

    play: Names = ("attribute", "property", "distribution")
    """The games; see `fedsim list games`."""
    column: str | None = None
    """The secret column of the training rows."""
    value: Text | None = None
    """The value of `column` that is secret."""
    above: Finite | None = None
    """For a column of numbers, in place of `value`: whether it lies above this number is secret."""
    batch_size: Counts = (1, 4, 16, 64)
    """Numbers of records in the client's batch; one game for each."""
    rounds: Counts = (1,)
    """Numbers of rounds under the same secret, with new records in each; one game for each."""
    every: Count = 10
    """Number of training steps between two rounds."""
    steps: Natural = 400
    """Number of training steps before the first round."""
    upload: Upload = "gradient"
    """What the client uploads."""
    trials: Count = 2000
    """Number of independent trials; at least 40."""
    shadows: Count = 3000
    """Number of the adversary's own trials; a quarter chooses and calibrates its predictors."""
    shares: Shares = (0.3, 0.7)
    """For `distribution`: the shares of records with the property that are told apart."""
    count: Count = 1
    """For `property`: number of records that have it."""
    own: Share = 1.0
    """For `user`: share of the batch that are the user's own records."""
    users: Count = 10
    """For `user` and `source`: number of users."""
    told_batch_size: Count | None = None
    """Batch size that the adversary assumes; the true one if omitted."""
    knows_model: bool = True
    """Whether the adversary knows the weights of every round; false: of the first round only."""
    knows_label: bool = True
    """Whether the adversary knows the label of a record in question."""
    knows_others: bool = False
    """Whether the adversary knows all other records of the batch: the worst case."""
    auxiliary: Count | None = None
    """Number of the adversary's own records; all that `auxiliary.share` gives if omitted."""
    defender: Share = 0.2
    """Share of the client's records that only its defender has, for a defense that must know the
    secret of some (`perturb`). The adversary sets as much of its own aside, to rehearse with. No
    trial is drawn from either."""
    shift: Rate = 0.0
    """Share of its own records of class 0 that the adversary lacks."""

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
