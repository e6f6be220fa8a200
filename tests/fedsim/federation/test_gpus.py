import pytest

from fedsim.core.errors import RunStopped
from fedsim.federation.gpus import gpu_places

ONE, MANY, NONE = {"CPU": 12.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 4.0}, {"CPU": 16.0}


@pytest.mark.parametrize(
    ("nodes", "count", "workers", "expected"),
    [
        ([NONE], 16, None, (16, 0.0)),  # Ray knows of no GPU
        ([ONE], 1, 1, (1, 1.0)),
        ([ONE], 12, None, (12, 0.0833)),
        ([{"CPU": 8.0, "GPU": 2.0}], 3, 3, (3, 0.5)),  # two of three would leave one without
        ([MANY, ONE], 16, None, (16, 0.0833)),  # four cores use four GPUs, twelve share one
        ([ONE, NONE], 28, None, (12, 0.0833)),  # no client trains where there is none
    ],
)
def test_all_actors_find_a_core_and_a_gpu(nodes, count, workers, expected):
    assert gpu_places(nodes, count, workers) == expected


def test_more_workers_than_find_a_gpu_are_refused():
    with pytest.raises(RunStopped, match=r"engine\.workers: .*12 cores .* with a GPU, got 13"):
        gpu_places([ONE, NONE], 13, 13)
