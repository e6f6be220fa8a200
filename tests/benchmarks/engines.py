"""What a round costs: bare PyTorch, and fedsim's and Flower's engines.

    uv run python -m tests.benchmarks.engines --data ../shared/data/mnist
    uv run python -m tests.benchmarks.engines --data ../shared/data/mnist \\
        --adult ../shared/data/adult --small

MNIST's 60,000 images are split evenly over the clients (ResNet-18: 60 images each); batches of 16,
one epoch. `--small` is the table of small clients: the bare loop, inline and batched, from 4 images
a client to 600, ResNet-18, and an MLP on Adult where its folder is given. `--cell` takes the parts
of `tests.benchmarks.floors`, too. Each cell is a process of its own; all cells of one
call belong together: compare the ratios. CPU-seconds and wall time are per round: the median of the
rounds after the first, which starts workers; with Flower the mean. Peak memory is the main
process's, with Flower the sum over all its processes.
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from fedsim.core.form import Form
from tests.benchmarks.floors import ALONE
from tests.benchmarks.record import record

ROOT = Path(__file__).parents[2]
CELLS = {  # model → (clients, images per client, rounds)
    "cnn": [(10, 6000, 3), (100, 600, 3), (1000, 60, 3), (100, 4, 8)],
    "resnet18": [(10, 60, 3)],
    "resnet18-memory": [(100, 16, 2)],
}
SMALL = {
    "cnn": [(100, 4, 8), (200, 4, 8), (1000, 4, 5), (1000, 60, 2), (100, 600, 2)],
    "resnet18": [(10, 60, 3)],
    "mlp-adult": [(200, 4, 12), (200, 60, 8)],
}
WAYS = ("bare", "inline", "ray", "flower")
SMALL_WAYS = ("bare", "inline", "batched")


def settings(data: Path, model: str, clients: int, images: int, rounds: int) -> list[str]:
    """Return what all ways have in common."""
    model, _, adult = model.removesuffix("-memory").partition("-")
    return [
        f"data={adult or 'mnist'}", f"data.root={data}", "data.partition=iid", f"model={model}",
        f"data.limit={images * clients}", "auxiliary.share=0.0",
        f"federation.clients={clients}", f"federation.rounds={rounds}",
        "federation.evaluate_every=0", "local.lr=0.05", "local.batch_size=16", "local.epochs=1",
        "attack=llg",
    ]  # fmt: skip


def empty_message(count: int = 2000) -> float:
    """Return the CPU-seconds of one message to a simulated client that does nothing, and back."""
    from flwr.app import Message, MessageType, RecordDict

    from fedsim.federation.grid import SimulationGrid
    from fedsim.federation.inline import inline

    grid = SimulationGrid(count, inline, Path("unused"))
    messages = [Message(RecordDict(), node, MessageType.QUERY) for node in grid.get_node_ids()]
    begun = time.process_time()
    assert sum(1 for reply in grid.send_and_receive(messages) if reply.has_content()) == count
    return (time.process_time() - begun) / count


def written(folder: Path, model: str, *, repeats: int = 51) -> dict[str, float]:
    """Return the CPU-ms of writing one upload, by safetensors' NumPy writer and by fedsim's."""
    import torch
    from safetensors.numpy import save_file

    from fedsim import models
    from fedsim.config import Model
    from fedsim.core.files import save_tensors

    torch.set_num_threads(1)
    state = models.build(Model(name=model), Form((1, 28, 28), 10), seed=0).state_dict()
    arrays = {name: value.numpy() for name, value in state.items()}
    metadata = {"round": "1", "client": "3", "num_examples": "60", "upload": "weights"}
    ways = {
        "safetensors": lambda: save_file(arrays, folder / "twin", metadata),
        "fedsim": lambda: save_tensors(folder / "own", state, metadata),
    }
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, write in ways.items():
            begun = time.process_time()
            write()
            spent[way].append(1000 * (time.process_time() - begun))
    return {way: statistics.median(times) for way, times in spent.items()}


def cpu_seconds() -> float:
    """Return the CPU time of this process and of all below it, alive or waited for."""
    import psutil

    spent = sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
                for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))  # fmt: skip
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent += times.user + times.system
    return spent


def measure(way: str, asked: list[str], out: Path) -> dict[str, float]:
    """Run one cell in this process."""
    from fedsim import api, config
    from fedsim.report import run as report

    report.write_report = lambda *_, **__: None  # it is no part of a round
    marks: list[tuple[float, float]] = []
    note = lambda *_: marks.append((cpu_seconds(), time.perf_counter()))
    if way in ALONE:
        for _ in ALONE[way](config.read(None, asked)):
            note()
    else:
        api.run(config.read(None, [*asked, f"engine.name={way}"]), out, on_round=note)
    spent = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(marks[1:])]
    cpu, wall = (statistics.median(each) for each in zip(*spent, strict=True))
    return {
        "cpu": cpu,
        "wall": wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_flower(asked: list[str], clients: int, out: Path, home: Path) -> dict[str, float]:
    """Run one cell with `flwr run` on a SuperLink of its own."""
    import psutil
    import pyarrow.compute as pc

    from fedsim.run.run_folder import RunFolder
    from tests.builders import flower_environment

    environment = flower_environment(home)
    flwr = Path(sys.executable).parent / "flwr"
    run_config = f'out="{out}" set="{";".join(asked)}"'
    size = f"num-supernodes={clients} client-resources-num-cpus=1"
    subprocess.run(
        [flwr, "run", ".", "--run-config", run_config, "--federation-config", size],
        cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    last = out / "leakage.parquet"
    mine: dict[int, psutil.Process] = {}
    marks: dict[int, float] = {}
    spent: dict[int, float] = {}
    peak = 0.0
    while not last.exists():
        for process in psutil.process_iter(["pid"]):
            try:
                known = process.pid in mine
                if known or process.environ().get("FLWR_HOME") == str(home):
                    mine[process.pid] = process
                    times = process.cpu_times()
                    spent[process.pid] = times.user + times.system
            except psutil.Error:
                continue
        rss = []
        for process in mine.values():
            try:
                rss.append(process.memory_info().rss / 2**20)
            except psutil.Error:
                continue
        peak = max(peak, sum(rss))
        done = max((int(p.name) for p in (out / "state").glob("[0-9]*")), default=-1)
        marks.setdefault(done, sum(spent.values()))
        time.sleep(0.2)
    rounds = max(marks) - 1
    for process in mine.values():
        try:
            process.terminate()
        except psutil.Error:
            continue
    table = RunFolder(out).metrics()
    wanted = pc.and_(
        pc.is_in(table["metric"], value_set=_strings("train_seconds", "attack_seconds")),
        pc.greater(table["round"], 1),
    )
    seconds = sum(table.filter(wanted)["value"].to_pylist())
    first = marks.get(1, marks.get(2, 0.0))
    return {
        "cpu": (marks[max(marks)] - first) / rounds,
        "wall": seconds / rounds,
        "peak_mb": peak,
    }


def _strings(*values: str):
    import pyarrow as pa

    return pa.array(values)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with MNIST/raw/*.gz")
    parser.add_argument("--adult", type=Path, help="folder with Adult's files, for --small")
    parser.add_argument("--small", action="store_true", help="the table of small clients")
    parser.add_argument("--ways", default="")
    parser.add_argument("--models", default="")
    parser.add_argument("--clients", default="")
    parser.add_argument("--cell", nargs=5, metavar=("WAY", "MODEL", "CLIENTS", "IMAGES", "ROUNDS"))
    parser.add_argument("--set", nargs="*", default=[], help="settings of the cell, last")
    parser.add_argument("--message", action="store_true", help="only the cost of an empty message")
    parser.add_argument("--files", action="store_true", help="only the cost of writing an upload")
    options = parser.parse_args()
    if options.message:
        print(f"empty message: {1000 * empty_message():.3f} ms of CPU")
        return
    if options.files:
        with tempfile.TemporaryDirectory() as folder:
            for model in ("resnet18", "cnn"):
                print(
                    model, {way: f"{ms:.3f} ms" for way, ms in written(Path(folder), model).items()}
                )
        return
    if options.cell:
        way, model, clients, images, rounds = options.cell
        with tempfile.TemporaryDirectory() as folder:
            asked = settings(options.data, model, int(clients), int(images), int(rounds))
            asked += options.set
            out = Path(folder) / "run"
            if way == "flower":
                result = measure_flower(asked, int(clients), out, Path(folder) / "flwr")
            else:
                result = measure(way, asked, out)
            print(json.dumps(result))
        return
    cells, ways = (SMALL, SMALL_WAYS) if options.small else (CELLS, WAYS)
    ways = options.ways.split(",") if options.ways else list(ways)
    print(f"{date.today()}, {_commit()}, {os.getloadavg()[0]:.0f} processes that want to run\n")
    with tempfile.TemporaryDirectory() as folder:
        mnist, adult = Path(folder, "mnist"), Path(folder, "adult")
        shutil.copytree(options.data, mnist)
        if options.adult:
            shutil.copytree(options.adult, adult)
        only = {int(number) for number in options.clients.split(",") if number}
        print("| model | clients × images | way | CPU s/round | ratio | wall s/round | peak MB |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for model in options.models.split(",") if options.models else cells:
            for size in cells[model]:
                if not only or size[0] in only:
                    chosen = ["inline"] if model.endswith("-memory") else ways
                    data = adult if model.endswith("-adult") else mnist
                    _print_row_per_way(data, model, size, chosen)


def _commit() -> str:
    """Return the commit, and the versions of what rounds are made of."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    versions = [f"{name} {version(name)}" for name in ("torch", "flwr")]
    return ", ".join([f"commit {commit or 'unknown'}", f"Python {python_version()}", *versions])


def _print_row_per_way(data: Path, model: str, size: tuple[int, int, int], ways: list[str]) -> None:
    base, figures = None, {}
    for way in ways:
        cell = ["--cell", way, model, *map(str, size)]
        command = [sys.executable, "-m", "tests.benchmarks.engines", "--data", str(data), *cell]
        child = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        told = json.loads(child.stdout.strip().splitlines()[-1])
        base = base or told["cpu"]
        row = [
            model, f"{size[0]} × {size[1]}", way, f"{told['cpu']:.3f}", f"{told['cpu'] / base:.2f}",
            f"{told['wall']:.3f}", f"{told['peak_mb']:.0f}",
        ]  # fmt: skip
        print(f"| {' | '.join(row)} |", flush=True)
        cell = f"{model}, {size[0]} × {size[1]}, {way}"
        figures[f"{cell}: times the CPU of {ways[0]}"] = told["cpu"] / base
        figures[f"{cell}: CPU seconds per round"] = told["cpu"]
        figures[f"{cell}: peak MB"] = told["peak_mb"]
    record("engines", figures)


if __name__ == "__main__":
    main()
