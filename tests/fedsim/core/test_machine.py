"""What this machine has."""

import gc
import threading

import pytest

from fedsim.core.machine import SELDOM, free_memory, pass_over, seldom_collected


@pytest.fixture
def root(tmp_path):
    """A root with 8 KiB available."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 16 kB\nMemAvailable: 8 kB\n")
    return tmp_path


def limited(root, most, current=1000, inactive=100):
    group = root / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{current}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


def test_free_is_what_linux_has_available(root):
    assert free_memory(root) == 8192


@pytest.mark.parametrize(("most", "free"), [("max", 8192), (3000, 2100), (500, 0), (10**9, 8192)])
def test_a_containers_limit_counts_where_it_is_lower(root, most, free):
    limited(root, most)
    assert free_memory(root) == free


def test_without_these_files_the_system_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 7, raising=False)
    assert free_memory(tmp_path) == 49

    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr("os.sysconf", unknown, raising=False)
    assert free_memory(tmp_path) is None


def test_what_is_there_is_not_collected_inside_and_is_again_after():
    before = gc.get_threshold()
    with seldom_collected():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] >= before[0]
        with seldom_collected():  # a run in a run
            pass
        frozen, came_since = gc.get_freeze_count(), [[] for _ in range(100)]
        pass_over()
        assert gc.get_freeze_count() >= frozen + len(came_since)
    pass_over()  # outside it does nothing
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)


def test_of_runs_in_two_threads_the_last_changes_the_collector_back():
    before, entered, left = gc.get_threshold(), threading.Event(), threading.Event()

    def first():
        with seldom_collected():
            entered.set()
            left.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(60)
    with seldom_collected():
        left.set()
        thread.join()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == max(before[0], SELDOM)
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)


def test_what_somebody_else_froze_stays_frozen():
    gc.freeze()
    try:
        with seldom_collected():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
