"""Waits grow with the machine's slowness, which is measured once; a test's cost is judged."""

import pytest

from tests import conftest, pace


@pytest.fixture
def starts(monkeypatch):
    """Let a process start in nine seconds; return the list of measurements."""
    measured = []

    def start_seconds():
        measured.append(9.0)
        return 9.0

    monkeypatch.setattr(pace, "start_seconds", start_seconds)
    return measured


def test_a_wait_is_longer_by_what_a_start_costs_and_that_is_measured_once(tmp_path, starts):
    assert pace.Patience(tmp_path)(10.0) == 10.0 * 9.0 / pace.START
    assert pace.Patience(tmp_path)(1.0) == 9.0 / pace.START
    assert starts == [9.0]


def test_a_fast_machine_waits_no_less(tmp_path):
    (tmp_path / "start_seconds").write_text("0.5")
    assert pace.Patience(tmp_path)(10.0) == 10.0


def test_what_does_not_come_is_an_error_after_a_second_look_at_the_machine(tmp_path, starts):
    (tmp_path / "start_seconds").write_text("1.0")
    with pytest.raises(AssertionError, match=r"^not in \d+ s: round 2$"):
        pace.Patience(tmp_path).wait(lambda: False, "round 2", 0.05)
    assert starts  # slower than it was
    answers = iter([False, False, True])
    pace.Patience(tmp_path).wait(lambda: next(answers), "round 2", 60.0)
    assert next(answers, None) is None


class Item:
    """A test with some markers."""

    def __init__(self, *markers):
        self.markers = markers

    def get_closest_marker(self, name):
        return name if name in self.markers else None


def cost(spent, *markers):
    """Judge a test that took so many CPU-seconds."""
    conftest.judge(Item(*markers), spent)


def test_a_costly_test_must_say_what_kind_it_is(monkeypatch):
    monkeypatch.setattr(pace, "slowness", lambda: 2.0)
    cost(4.9)
    cost(9.9)  # the machine is twice as slow
    cost(60.0, "twin")
    with pytest.raises(pytest.fail.Exception, match=r"cost: must be at most 10.0 s .*, got 11.0 s"):
        cost(11.0)
