"""Scores of a federation's canaries beside their coins.

Coins are fair, independent and the same in every round of a run. Given the coins, uploads of a
mechanism that draws fresh noise err independently, in every round and at every client alike. Sums
over a client's rounds err independently of other clients' whatever the noise does from round to
round. Numbers of coins decide which of the two is counted, never scores; the threshold is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from adversary.auditing.rates import most_epsilon
from adversary.auditing.trials import Trials
from adversary.auditing.uploads import ClientScores

FRESH = "fresh noise in every round"
APART = 2.0  # a canary and its opposite, in units of the canary
WORTH = 1.0  # an ε that sums over clients can show: below it single uploads are counted


@dataclass(frozen=True, eq=False)
class CoinedUpdates:
    """Scores of update canaries and their coins.

    Attributes:
        clients: The scores of every client.
        coins: Of every client.
    """

    clients: Sequence[ClientScores]
    coins: Bool[np.ndarray, " k"]

    @cached_property
    def sums(self) -> NDArray[np.float64]:
        """The sum of every client's scores."""
        return np.array([client.scores.sum() for client in self.clients])

    @property
    def by_client(self) -> Trials:
        """A trial per client: the sum of its scores."""
        return split_by(self.sums, self.coins)

    @property
    def by_upload(self) -> Trials:
        """A trial per upload."""
        scores = [client.scores for client in self.clients]
        coins = np.repeat(self.coins, [len(part) for part in scores])
        return split_by(np.concatenate(scores), coins)

    @property
    def cosines(self) -> NDArray[np.float64]:
        """The cosine of every client's summed uploads with its canary, turned by its coin."""
        return np.where(self.coins, 1, -1) * np.array([client.cosine for client in self.clients])

    @property
    def dimension(self) -> int:
        """Of the uploads."""
        return min(client.dimension for client in self.clients)

    def counted(self, *, delta: float, confidence: float) -> tuple[Trials, str | None]:
        """Return the trials that are counted, and what that assumes."""
        fewest = max(1, min(self.by_client.counts))
        if most_epsilon(fewest, delta=delta, confidence=confidence) < WORTH:
            return self.by_upload, FRESH
        return self.by_client, None


def split_by(scores: Float[np.ndarray, " n"], coins: Bool[np.ndarray, " n"]) -> Trials:
    """Return the scores of tails and those of heads."""
    return Trials(scores[~coins], scores[coins])


def all_assumed(*assumptions: str | None) -> str | None:
    """Return several assumptions as one phrase; None for none."""
    return " and ".join(each for each in assumptions if each) or None
