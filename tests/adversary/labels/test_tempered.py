import math

import torch

from adversary.labels.posterior import Evidence


def test_the_variance_of_counts_is_that_of_counts_that_add_up():
    quadratic = 4 * torch.eye(5, dtype=torch.float64)
    evidence = Evidence(quadratic, torch.zeros(5).double(), torch.zeros(5).double(), 20)
    assert math.isclose(evidence.variance(), 0.25)
    assert math.isclose(evidence.tempered(9.0).variance(), 2.25)


def test_evidence_on_nothing_leaves_counts_open():
    nothing = torch.zeros(3, 3, dtype=torch.float64)
    assert Evidence(nothing, nothing[0], nothing[0], 4).variance() == math.inf
