"""CPU time of shadow gradients beside the obvious loop, and of a whole grid of games.

    uv run python -m tests.benchmarks.games [--grid]

The loop takes one batch after the other: rows of the pool, zero_grad, backward, a copy of every
gradient. Both start from the same draws and end with the same (batches, parameters) table; the
ratio is the median over alternating runs. With --grid also the time of three games with forests at
four batch sizes, 3,000 shadow and 2,000 test trials each. Adult's size: 104 inputs, 32 hidden.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from adversary.games import GAMES
from adversary.games.gradients import batch_gradients
from adversary.games.learn import Adversary
from adversary.games.learner import Learner
from adversary.games.play import play
from adversary.games.records import Pool
from fedsim.core.rng import generator, global_stream
from fedsim.core.secrets import Rules
from fedsim.core.types import Auxiliary, LocalTraining
from tests.benchmarks.record import record

RECORDS, INPUTS, HIDDEN, CLASSES = 15_000, 104, 32, 2
BATCHES, REPEATS = 1000, 9
SIZES = (1, 4, 16, 64)
PLAYED = ("attribute", "property", "distribution")


def network() -> nn.Module:
    """Return a network of Adult's size."""
    with global_stream(0, "model"):
        return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def pool(name: str) -> Pool:
    """Return records like Adult's: six numbers and one-hot categories, of which sex is one."""
    stream = generator(0, "records", name)
    inputs = torch.zeros(RECORDS, INPUTS)
    inputs[:, :6] = torch.randn(RECORDS, 6, generator=stream)
    sex = (torch.rand(RECORDS, generator=stream) < 0.675).long()
    inputs[:, 6:8] = torch.eye(2)[sex]
    for start in range(8, INPUTS, 16):  # six categories of sixteen values
        value = torch.randint(16, (RECORDS, 1), generator=stream)
        inputs[:, start : start + 16].scatter_(1, value, 1.0)
    labels = (torch.rand(RECORDS, generator=stream) < torch.sigmoid(inputs[:, 0] + sex - 1)).long()
    return Pool(inputs, labels, sex)


def by_loop(model: nn.Module, records: Pool, rows: Tensor) -> Tensor:
    """Return the gradient of every batch, one after the other."""
    found = []
    for row in rows:
        model.zero_grad()
        nn.functional.cross_entropy(model(records.inputs[row]), records.labels[row]).backward()
        found.append(torch.cat([value.grad.flatten().clone() for value in model.parameters()]))
    return torch.stack(found)


def at_once(model: nn.Module, records: Pool, rows: Tensor) -> Tensor:
    """Return the gradient of every batch."""
    inputs, labels = records.inputs[rows], records.labels[rows]
    return batch_gradients(model, model.state_dict(), inputs, labels)


def seconds(function: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    begun = time.process_time()
    function()
    return time.process_time() - begun


def gradients(size: int) -> tuple[float, float, float]:
    """Return microseconds per batch of the loop and of all at once, and the median ratio."""
    model, records = network(), pool("private")
    rows = torch.randint(RECORDS, (BATCHES, size), generator=generator(0, "rows", size))
    torch.testing.assert_close(
        at_once(model, records, rows), by_loop(model, records, rows), rtol=1e-3, atol=1e-5
    )
    pairs = [
        tuple(seconds(lambda: take(model, records, rows)) for take in (by_loop, at_once))
        for _ in range(REPEATS)
    ]
    middle = lambda values: sorted(values)[REPEATS // 2]
    slow, fast = (1e6 * middle(spent) / BATCHES for spent in zip(*pairs, strict=True))
    return slow, fast, middle([loop / ours for loop, ours in pairs])


def grid(game: str, size: int) -> tuple[float, float]:
    """Return CPU and wall seconds of a game."""
    client = Learner(Auxiliary(network(), CLASSES), LocalTraining(0.1, size, upload="gradient"))
    private, state = pool("private"), client.model.state_dict()
    adversary = Adversary(
        game=GAMES[game], rules=Rules(size), learner=client, pool=pool("auxiliary"), shadows=3000
    )
    begun = time.perf_counter()
    spent = seconds(lambda: play(adversary, private, [state], trials=2000))
    return spent, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'records':>8}{'loop, µs':>12}{'ours, µs':>12}{'ratio':>8}   per batch")
    figures: dict[str, float] = {}
    for size in SIZES:
        slow, fast, ratio = gradients(size)
        print(f"{size:8}{slow:12.1f}{fast:12.1f}{ratio:7.1f}×", flush=True)
        figures[f"batches of {size}: times faster than the loop"] = ratio
    if asked.grid:
        figures["grid, CPU seconds"] = print_grid()
    record("games", figures)


def print_grid() -> float:
    """Print the time of every cell, and return the CPU time of all."""
    whole = torch.zeros(2)
    for game in PLAYED:
        for size in SIZES:
            spent = torch.tensor(grid(game, size))
            whole += spent
            print(f"{game:14}{size:4}{spent[0]:8.1f} s CPU{spent[1]:8.1f} s", flush=True)
    print(f"{'grid':18}{whole[0]:8.1f} s CPU{whole[1]:8.1f} s")
    return float(whole[0])


if __name__ == "__main__":
    main()
