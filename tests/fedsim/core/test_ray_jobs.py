"""Starting Ray on a busy machine."""

import pytest

from fedsim.core import ray_jobs
from fedsim.core.errors import RunStopped


class Slow:
    """Ray, whose node starts in time at a certain try only."""

    def __init__(self, monkeypatch, right):
        self.tried, self.stopped, self.right = 0, 0, right
        monkeypatch.setattr(ray_jobs.ray, "init", self.init)
        monkeypatch.setattr(ray_jobs.ray, "shutdown", self.shutdown)
        monkeypatch.setattr(ray_jobs.ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray_jobs.ray, "cluster_resources", lambda: {"CPU": 1.0})

    def init(self, **_):
        self.tried += 1
        if self.tried < self.right:
            raise Exception("The current node timed out during startup.")  # as Ray does

    def shutdown(self):
        self.stopped += 1


def test_a_node_that_starts_too_slowly_is_started_again(monkeypatch):
    ray = Slow(monkeypatch, right=3)
    with ray_jobs.connected(None, 1) as workers:
        assert workers == 1
    assert (ray.tried, ray.stopped) == (3, 3)  # two in vain, and the end


def test_what_never_starts_is_one_sentence_and_a_cluster_is_called_once(monkeypatch):
    ray = Slow(monkeypatch, right=100)
    sentence = "engine.address: Ray must be reachable .*timed out during startup"
    with pytest.raises(RunStopped, match=sentence), ray_jobs.connected(None, 1):
        pass
    assert ray.tried == ray_jobs.STARTS
    with pytest.raises(RunStopped, match=sentence), ray_jobs.connected("127.0.0.1:1", 1):
        pass
    assert ray.tried == ray_jobs.STARTS + 1
