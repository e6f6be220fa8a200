"""How the cost of a run grows with rounds and clients: CPU-seconds, and the exponent of each.

    uv run python -m tests.benchmarks.growth

A linear model on a toy set; 20 clients take part in a round, so that a round's work is the same in
every row, and LLG attacks all of them in every round. An exponent of 1 says that twice as many cost
twice as much; what a run costs before its first round is measured by itself and left out of them.
`--count 10,100,300` counts what a round does at these rounds, which load does not change: calls of
functions, and bytes and calls of reading and writing (Linux). It is of LLG, or of one attack over
all rounds that `--attacks` names.
"""

import argparse
import cProfile
import math
import pstats
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from fedsim import api, data
from fedsim.config import Config, parse
from fedsim.data import Dataset
from fedsim.federation.progress import Round
from fedsim.run.costs import expected_costs
from fedsim.run.prepare import prepare
from fedsim.run.run_folder import RunFolder
from tests.benchmarks.record import record

ROUNDS = (10, 100, 1000)
CLIENTS = (10, 1000, 10_000)
PER_ROUND = 20
COUNTED = 5  # rounds
LOOKING_BACK = ("cosine-mia-rounds", "fedmia-rounds", "eb-gls-rounds", "linkage-whitened-rounds")


def toy(root: Path, *, size: int = 20_000) -> Dataset:
    """Ten classes in eight dimensions; two records for each of 10,000 users."""
    stream = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, 8, generator=stream)
    return Dataset(
        inputs=inputs, labels=torch.arange(size) % 10, num_classes=10,
        test_inputs=inputs[:100], test_labels=torch.arange(100) % 10,
        columns={"user": np.arange(size) // 2},
    )  # fmt: skip


def config_of(rounds: int, clients: int, attack: str = "llg") -> Config:
    """Return a run in which rounds cost the same whatever their number is."""
    return parse({
        "data": {
            "name": "tests.benchmarks.growth:toy", "limit": 2 * clients,
            "partition": "user", "users": "user",
        },
        "model": {"name": "mlp", "hidden": 8}, "local": {"epochs": 1, "batch_size": 2},
        "federation": {
            "rounds": rounds, "clients": clients, "per_round": min(PER_ROUND, clients),
            "evaluate_every": 0,
        },
        "auxiliary": {"share": 0.0}, "attack": attack,
    })  # fmt: skip


def looking_back(rounds: int, attack: str) -> Config:
    """Return a run whose attack on a round is about all rounds before it, too."""
    tables = config_of(rounds, PER_ROUND).model_dump(mode="json")
    tables |= {"attack": [attack], "auxiliary": {"share": 0.2}}
    tables["data"]["limit"] = 10 * PER_ROUND
    return parse(tables)


def audited(rounds: int) -> Config:
    """Return a run of two clients whose uploads are audited after every round."""
    config = config_of(rounds, 2)
    tables = config.model_dump(mode="json") | {
        "defense": [{"name": "clip", "bound": 1.0}, {"name": "gaussian", "std": 1.0}],
        "audit": {"clients": 2}, "attack": [],
    }  # fmt: skip
    return parse(tables)


def cpu(do: Callable[[], object]) -> float:
    """Return the CPU-seconds of a call in this process."""
    begun = time.process_time()
    do()
    return time.process_time() - begun


def of_all(marks: Sequence[float]) -> float:
    """Return what all rounds cost, from when each ended; the first two are a warm-up."""
    return (marks[-1] - marks[1]) / (len(marks) - 2) * len(marks)


def over_rounds(
    folder: Path, rounds: Sequence[int], attacks: Sequence[str]
) -> dict[str, list[float]]:
    """Return costs by the number of rounds: of rounds, their attacks and audits, and of reading."""
    costs = defaultdict[str, list[float]](list)
    for number in rounds:
        marks: list[float] = []
        path = folder / f"rounds{number}"
        run = api.run(
            config_of(number, PER_ROUND), path, on_round=lambda _: marks.append(time.process_time())
        )
        costs["the rounds of a run"].append(of_all(marks))
        costs["Run.ledger()"].append(cpu(run.ledger))
        plan = prepare(config_of(number, PER_ROUND))
        costs["what a run will cost, estimated"].append(cpu(lambda plan=plan: expected_costs(plan)))
        for attack in attacks:
            marks.clear()
            api.run(
                looking_back(number, attack), folder / f"{attack}{number}",
                on_round=lambda _: marks.append(time.process_time()),
            )  # fmt: skip
            costs[f"the rounds of a run, attacked by {attack}"].append(of_all(marks))
        marks.clear()
        api.run(
            audited(number), folder / f"audited{number}",
            on_round=lambda _: marks.append(time.process_time()),
        )  # fmt: skip
        costs["the rounds of a run, each of them audited"].append(of_all(marks))
    return costs


def over_clients(folder: Path, clients: Sequence[int], rounds: int) -> dict[str, list[float]]:
    """Return costs by the number of clients: of dealing out the data, and of 20 clients a round."""
    costs: dict[str, list[float]] = {"partition by user": [], "start": [], "rounds of 20": []}
    for number in clients:
        config, marks = config_of(rounds, number), list[float]()
        costs["partition by user"].append(cpu(lambda config=config: data.federate(config)))
        begun = time.process_time()
        path = folder / f"clients{number}"
        api.run(config, path, on_round=lambda _: marks.append(time.process_time()))
        costs["start"].append(marks[0] - begun)
        costs["rounds of 20"].append(of_all(marks) / min(number, PER_ROUND) * PER_ROUND)
        assert RunFolder(path).finished_rounds[-1] == rounds
    return costs


def counted(folder: Path, rounds: Sequence[int], attack: str) -> dict[str, list[float]]:
    """Return what one of the `COUNTED` rounds after each of some does, by what is counted."""
    last = max(rounds) + COUNTED
    config = looking_back(last, attack) if attack else config_of(last, PER_ROUND)
    profiles = {number: cProfile.Profile() for number in rounds}
    before: dict[int, dict[str, int]] = {}
    counts = defaultdict[str, list[float]](list)

    def on_round(done: Round) -> None:
        if (begun := done.number - COUNTED) in profiles:
            profiles[begun].disable()
            spent = {name: count - before[begun][name] for name, count in _io().items()}
            spent["calls"] = pstats.Stats(profiles[begun]).total_calls  # type: ignore[attr-defined]
            for name, count in spent.items():
                counts[name].append(count / COUNTED)
        if done.number in profiles:
            before[done.number] = _io()
            profiles[done.number].enable()

    api.run(config, folder / f"counted-{attack}", on_round=on_round)
    return counts


def _io() -> dict[str, int]:
    names = {
        "rchar": "bytes read", "wchar": "bytes written", "syscr": "reads", "syscw": "writes",
    }  # fmt: skip
    lines = (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {names[name]: int(count) for name, count in lines if name in names}


def exponents(sizes: Sequence[int], costs: Sequence[float]) -> list[float]:
    """Return the exponent of a cost between each size and the next."""
    pairs = zip(sizes, sizes[1:], costs, costs[1:], strict=False)
    return [math.log(after / before) / math.log(large / small)
            for small, large, before, after in pairs]  # fmt: skip


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", default=",".join(map(str, ROUNDS)))
    parser.add_argument("--clients", default=",".join(map(str, CLIENTS)))
    parser.add_argument("--each", type=int, default=20, help="rounds for each number of clients")
    parser.add_argument("--attacks", default=",".join(LOOKING_BACK), help="over all rounds so far")
    parser.add_argument("--count", default="", help="count what these rounds do, at least 6 apart")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.count:
        looks_back = chosen.attacks if chosen.attacks in LOOKING_BACK else ""
        some = [int(text) for text in chosen.count.split(",")]
        with tempfile.TemporaryDirectory() as name:
            for what, counts in counted(Path(name), some, looks_back).items():
                print(f"| {what} | {' | '.join(f'{count:,.0f}' for count in counts)} |")
        return
    rounds, clients = (
        [int(text) for text in option.split(",")] for option in (chosen.rounds, chosen.clients)
    )
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        api.run(config_of(1, PER_ROUND), folder / "first")  # imports
        for what, sizes, costs in (
            ("rounds", rounds, over_rounds(folder, rounds, chosen.attacks.split(","))),
            ("clients", clients, over_clients(folder, clients, chosen.each)),
        ):
            print(f"\n| CPU-seconds by {what} | {' | '.join(map(str, sizes))} | exponents |")
            print(f"| --- |{' --- |' * (len(sizes) + 1)}")
            for part, spent in costs.items():
                growth = exponents(sizes, spent)
                measured |= {
                    f"{part}, {size} {what}: CPU-s": one
                    for size, one in zip(sizes, spent, strict=True)
                }
                measured[f"{part}, by {what}: largest exponent"] = max(growth)
                cells = " | ".join(f"{one:.3g}" for one in spent)
                print(f"| {part} | {cells} | {', '.join(f'{one:.2f}' for one in growth)} |")
    record("growth", measured)


if __name__ == "__main__":
    main()
