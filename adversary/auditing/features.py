"""Features of uploads: what an auditor measures of every run, tensor by tensor.

A statistic is learned on the first half of the runs and certified on the second (`learned`), and
values that repeat are counted in the same halves (`repeats`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from adversary.auditing.statistics import Candidates, Chosen, candidates
from adversary.auditing.trials import check_finite

Table = Float[np.ndarray, "_ _"]


@dataclass(frozen=True, eq=False)
class Features:
    """Features of independent runs on two neighbouring data sets.

    Attributes:
        names: Of the features, such as `head.bias: along the canary`.
        without: Of every run without the canary, shape (n, f).
        having: Of every run with it.
        mark_names: Of the marks: the parts of an upload that they stand for.
        marks_without: One number for each part of an upload, equal where the part is; shape (n, k).
        marks_having: The same of every run with the canary.
    """

    names: Sequence[str]
    without: Table
    having: Table
    mark_names: Sequence[str]
    marks_without: Table
    marks_having: Table

    def half(self, start: int) -> "Features":
        """Return every second run, from the first (0) or the second (1)."""
        parts = (self.without, self.having, self.marks_without, self.marks_having)
        without, having, marks_without, marks_having = (part[start::2] for part in parts)
        names, mark_names = self.names, self.mark_names
        return Features(names, without, having, mark_names, marks_without, marks_having)

    def check(self) -> None:
        """Refuse features that are no numbers.

        Raises:
            ValueError: A feature or a mark is NaN.
        """
        check_finite(self.without.ravel(), self.having.ravel())
        check_finite(self.marks_without.ravel(), self.marks_having.ravel())

    @cached_property
    def _candidates(self) -> Candidates:
        first = self.half(0)
        return candidates(first.names, first.without, first.having)

    @cached_property
    def by_epsilon(self) -> Chosen:
        """The statistic of the first half that shows the largest ε there."""
        return self._candidates.best(gaussian=False)

    @cached_property
    def by_mu(self) -> Chosen:
        """The statistic of the first half that shows the largest μ there."""
        return self._candidates.best(gaussian=True)
