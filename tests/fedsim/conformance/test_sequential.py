"""Tests of chance: they find what is there, not what is not, and stop early."""

import random

import pytest

from fedsim.conformance.sequential import FALSE_ALARM, MISSED, MOST, has_advantage, is_better


def normal(seed, mean):
    stream = random.Random(seed)
    while True:
        yield stream.gauss(mean, 1)


def taken(gains, spent):
    for gain in gains:
        spent.append(gain)
        yield gain


def test_errors_and_trials_of_the_test_for_an_advantage():
    spent = []
    alarms = sum(has_advantage(taken(normal(seed, 0.0), spent)) for seed in range(1000))
    assert len(spent) < 45 * 1000
    missed = sum(not has_advantage(normal(seed, 0.5)) for seed in range(1000))
    assert alarms <= 4  # 0.04 %: more than 4 have a chance below 1e-4
    assert missed <= 1000 * MISSED
    assert FALSE_ALARM < 1 / MOST


@pytest.mark.parametrize(("value", "better"), [(0.0, False), (-1.0, False), (0.1, True)])
def test_gains_that_are_all_equal(value, better):
    assert has_advantage([value] * 200) is better
    assert is_better([value] * 200) is better


def test_what_is_better_is_found_and_nothing_else():
    assert sum(is_better(normal(seed, 0.0)) for seed in range(1000)) == 0
    assert sum(is_better(normal(seed, 1.5)) for seed in range(100)) == 100
