"""Audits: how private a mechanism is at most, from what canaries give away.

In: a mechanism's uploads with and without canaries, or a run's uploads and its clients' coins. Out:
findings, each a number with its guarantee, and the claim that bounds may refute. `METHODS` lists
the ways from scores to a number; each has its record in its file.

An audit takes the side of the strongest adversary that a claim of differential privacy allows: it
chooses the record (the canary), knows everything else, and tells two neighbouring data sets apart
by what is uploaded.
"""

from adversary.auditing import (
    bayes,
    bonferroni,
    clopper_pearson,
    f_dp,
    hull,
    learned,
    mean,
    mu_gdp,
    multi_split,
    one_run,
    one_shot,
    repeats,
    subsampled,
)
from adversary.auditing.method import Method

MODULES = (
    mean, mu_gdp, bonferroni, hull, multi_split, clopper_pearson, one_run, f_dp, bayes, one_shot,
    learned, repeats, subsampled,
)  # fmt: skip
METHODS: dict[str, Method] = {
    method.name: method for method in (*(module.METHOD for module in MODULES), learned.GAUSSIAN)
}
