"""CPU time of every defense on an update of ResNet-18, as a multiple of one copy of the update.

    uv run python -m tests.benchmarks.defense_speed

Each is measured right after a copy, on one thread; the figure is the median of these ratios. Freed
memory stays with the process (on Linux), so that a copy is a copy: fetching its pages from the
system again would take seven times as long, and come and go from one call to the next.
"""

import ctypes
import sys
import time
from collections.abc import Callable

import torch

from defenses import DEFENSES, Defense
from fedsim.core.rng import generator
from fedsim.core.types import Params
from fedsim.models.resnet18 import resnet18
from tests.benchmarks.record import record

REPEATS = 15
OPTIONS = {
    "freeze": [{"layers": ["fc", "layer4"]}],
    "clip": [{"bound": 1.0}, {"bound": 1.0, "per_layer": True}],
    "prune": [
        {"rate": 0.5},
        {"rate": 0.9},
        {"rate": 0.99},
        {"rate": 0.9, "per_layer": True},
        {"rate": 0.9, "error_feedback": True},
        {"rate": 0.9, "error_feedback": True, "momentum": 0.9},
    ],
}


def resnet_update() -> dict[str, torch.Tensor]:
    """Return an update of 11.2M entries; its tensors differ in size of entry as layers do."""
    stream = generator(0, "update")
    return {
        name: torch.randn(value.shape, generator=stream) * 10.0 ** (-2 - place % 3)
        for place, (name, value) in enumerate(resnet18((3, 32, 32), 10).named_parameters())
    }


def seconds(function: Callable[[], object]) -> float:
    begun = time.process_time()
    function()
    return time.process_time() - begun


def ratio(defense: Defense, update: Params) -> tuple[float, float]:
    """Return how many copies of the update a defense takes, and its milliseconds."""
    _, state = defense.apply(update, defense.init(update), generator(0))
    copy = lambda: {name: value.clone() for name, value in update.items()}
    apply = lambda: defense.apply(update, state, generator(1))
    pairs = [(seconds(copy), seconds(apply)) for _ in range(REPEATS)][1:]
    ratios = sorted(spent / copied for copied, spent in pairs)
    return ratios[len(ratios) // 2], 1000 * sorted(spent for _, spent in pairs)[len(pairs) // 2]


def keep_freed_memory() -> None:
    """Tell glibc to give nothing back: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
    if sys.platform == "linux":
        glibc = ctypes.CDLL(None)
        glibc.mallopt(-1, 2**31 - 1)
        glibc.mallopt(-3, 2**25)


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    update = resnet_update()
    print(f"{sum(value.numel() for value in update.values()):,} entries; multiples of a copy")
    figures: dict[str, float] = {}
    for name, entry in DEFENSES.items():
        for options in OPTIONS.get(name, [{}]):
            copies, spent = ratio(entry.make(**options), update)
            said = ", ".join(f"{key}={value}" for key, value in options.items())
            print(f"{name:12}{said:52}{copies:8.1f}×{spent:9.1f} ms", flush=True)
            figures[f"{name} {said}".strip() + ": copies of the update"] = copies
    record("defense_speed", figures)


if __name__ == "__main__":
    main()
