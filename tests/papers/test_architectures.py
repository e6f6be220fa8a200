"""Verdicts on eleven architectures, beside what the joint attack makes of a start nearby."""

import pytest

from tests.benchmarks.architectures import ARCHITECTURES, explained, nearby


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_called_recoverable_is_recovered_and_what_is_called_hidden_is_not(name):
    guess, x = nearby(name)
    error = float((guess - x).norm() / x.norm())
    verdict = explained(name).verdict
    assert verdict.kind == ("hidden" if name == "strided" else verdict.kind)
    assert (error < 1e-9) == (verdict.kind in ("jointly", "layer by layer"))
