import weakref

import pytest

from adversary.memo import once


class Thing:
    """Something that equals everything."""

    def __init__(self, value=0):
        self.value = value

    def __eq__(self, other):
        return True

    __hash__ = None  # type: ignore[assignment]


def counted(size=4):
    calls = []

    @once(size)
    def function(one, two=None, *, option=0):
        """Say what it does."""
        calls.append(option)
        return [one.value]

    return function, calls


def test_an_object_is_looked_at_once_and_an_equal_one_again():
    function, calls = counted()
    first, second = Thing(), Thing()
    assert function(first) is function(first)
    assert function(first) is not function(second)
    assert len(calls) == 2


def test_all_positional_arguments_and_the_values_of_options_count():
    function, calls = counted()
    one, two, other = Thing(), Thing(), Thing()
    function(one, two)
    function(one, two, option=[1][0])
    function(one, two, option=1)
    assert len(calls) == 2
    function(one, other)
    function(two, one)
    assert len(calls) == 4


def test_only_the_last_results_are_kept():
    function, calls = counted(size=2)
    things = [Thing() for _ in range(3)]
    for thing in (*things, things[2], things[1]):
        function(thing)
    assert len(calls) == 3
    function(things[0])
    assert len(calls) == 4


def test_what_is_remembered_stays_alive_and_no_longer():
    function, _ = counted(size=1)
    thing = Thing()
    function(thing)
    seen = weakref.ref(thing)
    del thing
    assert seen() is not None  # else another object could take its id
    function(Thing())
    assert seen() is None


def test_a_failure_is_not_remembered():
    calls = []

    @once()
    def fail(thing):
        calls.append(1)
        raise ValueError("no")

    thing = Thing()
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            fail(thing)
    assert len(calls) == 2


def test_it_looks_like_the_function_it_wraps():
    function, _ = counted()
    assert (function.__name__, function.__doc__) == ("function", "Say what it does.")
