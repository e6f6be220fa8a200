"""What a round does, counted early and late in a run: load on a machine does not change it."""

import sys

import pytest

from tests.benchmarks.growth import counted


@pytest.mark.skipif(sys.platform != "linux", reason="counts of reading are Linux's")
def test_a_round_does_the_same_early_and_late_in_a_run(tmp_path):
    counts = counted(tmp_path, (3, 9), "")
    for early, late in counts.values():
        assert late <= 1.02 * early + 5
