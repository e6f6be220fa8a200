"""The sections of the config on the adversary: what it knows, what it keeps, how it is graded."""

from typing import Annotated

from pydantic import Field

from fedsim.config.fields import Count, Natural, Rate, Section, Share


class RangeQueries(Section):
    """The ranges that attacks on range membership ask about.

    Each is built around a record: half of them training rows, half test rows. The adversary knows
    the label, and some entries of the input.
    """

    count: Natural = 400
    """Number of ranges."""
    missing: Rate = 0.5
    """Share of a record's entries that the adversary does not know."""
    radius: Rate = 0.0
    """How far off an entry that the adversary knows may be, as a share of the entry's spread."""


class Knowledge(Section):
    """What the adversary knows before round 1.

    If it knows the clients' defense, each attack that can use this runs twice: with it and without.
    """

    share: Rate = 0.1
    """Share of the training examples that are the adversary's; no client has them."""
    overlap: Share = 0.01
    """Largest share of the adversary's examples that may be copies of the clients'; more stop
    the run."""
    knows_defense: bool = True
    """Whether the adversary knows the clients' defense."""
    candidates: Natural = 400
    """Number of examples that attacks on membership ask about: half are training rows, half
    test rows."""
    set_size: Natural = 50
    """Number of records in the set that attacks on usage ask about, one set for each client. The
    client has none, a quarter, half, three quarters or all of them; the others are test rows of the
    same labels."""
    range: RangeQueries = RangeQueries()
    """The ranges that attacks on range membership ask about."""


class Record(Section):
    """Which uploads are kept for attacks."""

    every: Count = 1
    """Every so many rounds are kept, from the first on."""
    clients: tuple[str, ...] | None = None
    """Clients whose uploads are kept, by number; all if omitted."""

    def keeps(self, round_: int, client: str | None = None) -> bool:
        """Return whether a round (and in it a client) is recorded."""
        chosen = client is None or self.clients is None or client in self.clients
        return (round_ - 1) % self.every == 0 and chosen


class Grading(Section):
    """How answers of attacks are compared with the truth."""

    candidates: Annotated[int, Field(ge=2, strict=True)] = 100
    """Size of the line-up from which a reconstruction picks an example of the client: the example
    itself, and others of the data set. The chance of the match rate is 1 divided by it."""
    lpips: bool = False
    """Whether reconstructed images are also graded by LPIPS; needs `fedsim[lpips]` and AlexNet's
    weights."""
