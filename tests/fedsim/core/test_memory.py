import gc
import weakref

import pytest

from fedsim.core.memory import Memory


class Thing:
    """Something that stands for itself."""


def counted(memory, key, *, kind="kind", keep=32):
    """Return what a memory gives for a key, and how often it was computed."""
    calls = []
    value = memory.get(kind, key, lambda: calls.append(key) or [key], keep=keep)
    return value, len(calls)


def test_a_result_is_computed_once_for_each_kind_and_key():
    memory, first, second = Memory(), Thing(), Thing()
    value, calls = counted(memory, (first, 1))
    assert calls == 1
    again, calls = counted(memory, (first, 1))
    assert (again is value, calls) == (True, 0)
    assert counted(memory, (second, 1))[1] == 1
    assert counted(memory, (first, 2))[1] == 1
    assert counted(memory, (first, 1), kind="another")[1] == 1
    assert counted(Memory(), (first, 1))[1] == 1


def test_of_each_kind_those_that_were_used_last_are_kept():
    memory = Memory()
    counted(memory, 9, kind="another", keep=2)
    for key in (0, 1, 0, 2):  # 1 was not used for longest
        counted(memory, key, keep=2)
    assert [counted(memory, key, keep=2)[1] for key in (0, 2, 1)] == [0, 0, 1]
    assert counted(memory, 9, kind="another", keep=2)[1] == 0


def test_a_failure_is_not_kept():
    memory, calls = Memory(), []

    def fail():
        calls.append(1)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            memory.get("kind", 1, fail)
    assert len(calls) == 2


def test_what_is_kept_ends_with_the_context_and_what_lasts_does_not():
    run, thing, lasting = Memory(), Thing(), Thing()
    seen, stays = weakref.ref(thing), weakref.ref(lasting)
    with Memory(run) as memory:
        # Its key and a way back to the memory, as a workspace has one.
        memory.get("kind", thing, lambda: [thing, memory])
        memory.run.get("kind", 1, lambda: lasting)
        del thing, lasting
        assert seen() is not None
    gc.disable()
    try:
        assert seen() is None
    finally:
        gc.enable()
    assert stays() is not None
    assert counted(run, 1)[1] == 0


def test_a_memory_without_a_run_is_its_own():
    memory = Memory()
    assert memory.run is memory
