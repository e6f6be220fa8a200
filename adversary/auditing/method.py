"""What an audit method is: a way from scores to a number, and what kind of number it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adversary.auditing.claim import Claim
from adversary.auditing.coins import CoinedUpdates
from adversary.auditing.finding import Finding, Guarantee
from adversary.auditing.trials import Trials

OfUpdates = Callable[[CoinedUpdates, Claim, float], Finding]
"""(update canaries and their coins, claim, confidence) → what they show."""
OfFeatures = Callable[..., Finding]
"""Features of runs, with the keywords `relation`, `delta` and `confidence` → what they show."""
OfSampled = Callable[[Trials, Claim, float], Finding]
"""(trials, claim of subsampled steps, confidence) → what they show."""
OfRecords = Callable[[NDArray[np.float64], NDArray[np.bool_], Claim, float], Finding]
"""(scores of record canaries, their coins, claim, confidence) → what they show."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One audit method.

    Attributes:
        name: In short; the ledger puts `audit-` before it.
        title: In a legend.
        guarantee: What kind of number it gives.
        head: Over a column of the command's table; empty if it has no test of trials.
        how: What it counts in an audited round; `{}` stands for single uploads or clients' sums.
        tests: Threshold rule (`audit.threshold`) → a test of trials, called with `trials` and the
            keywords `relation`, `delta` and `confidence`.
        of_sampled: What it makes of trials of a mechanism that claims subsampled Gaussian steps,
            called with `trials`, `claim` and `confidence`; None if it does not apply.
        of_features: What it makes of the features of runs, whatever the rule; None if it does not
            apply.
        of_updates: What it makes of update canaries in a run; None if it does not apply.
        of_records: What it makes of record canaries in a run; None if it does not apply.
    """

    name: str
    title: str
    guarantee: Guarantee
    head: str = ""
    how: str = ""
    tests: Mapping[str, Callable[..., Finding]] = field(default_factory=dict)
    of_sampled: OfSampled | None = None
    of_features: OfFeatures | None = None
    of_updates: OfUpdates | None = None
    of_records: OfRecords | None = None

    @property
    def of_runs(self) -> bool:
        """Whether it takes runs of a mechanism, as `fedsim audit` makes them."""
        return bool(self.tests or self.of_features or self.of_sampled)
