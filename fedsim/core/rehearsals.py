"""How an adversary rehearses clients, and how many of them it could not train together."""

from collections import Counter
from dataclasses import dataclass, field

from fedsim.core.memory import Memory


@dataclass(eq=False)
class Rehearsals:
    """How an adversary rehearses clients.

    Attributes:
        batch: How many of them train together, at most; 1: one by one, with the bits of a client's
            own training.
        alone: Why clients trained one by one although more might train together, with how many.
        memory: Of what trials of the model show.
    """

    batch: int = 1
    alone: Counter[str] = field(default_factory=Counter)
    memory: Memory = field(default_factory=Memory, repr=False)

    def counted(self) -> dict[str, int]:
        """Return why clients trained one by one, with how many, and begin to count anew."""
        counts = dict(sorted(self.alone.items()))
        self.alone.clear()
        return counts
