"""CPU time of 10,000 runs of an audited mechanism, drawn at once and one by one, and of crafting.

    uv run python -m tests.benchmarks.audits --data DIR

Adult, MLP 104-32-2 (3,426 parameters), DP-SGD and clip → gaussian on one record and on sixteen.
The baseline is the client's own code, one run after the other; 1,000 of them are timed.
"""

import argparse
import time

import torch

from fedsim import config as configs
from fedsim.audit.mechanism import Mechanism
from fedsim.audit.neighbours import craft, neighbours
from fedsim.audit.setup import prepare
from fedsim.audit.statistic import statistic
from tests.benchmarks.record import record

RUNS, SLOW = 10_000, 1000
CHAINS = (
    '[{name="dp-sgd", clip=0.9, noise=1.0}]',
    '[{name="clip", bound=0.9}, {name="gaussian", std=0.9}]',
)


def main() -> None:
    """Print a line per mechanism and per canary."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="folder of Adult")
    root = parser.parse_args().data
    torch.set_num_threads(1)
    settings = [
        "data=adult", f"data.root={root}", "model=mlp", "model.hidden=32", "audit.column=sex",
        "federation.strategy=fedsgd", "local.epochs=1", "local.lr=0.1",
    ]  # fmt: skip
    figures: dict[str, float] = {}
    for chain in CHAINS:
        for batch in (1, 16):
            asked = [*settings, f"defense={chain}", f"audit.batch_size={batch}"]
            setup = prepare(configs.read(None, asked))
            both = neighbours(setup, "natural", craft(setup, "natural"))
            made, score = setup.mechanism, statistic(setup.mechanism, both)
            slow = Mechanism(local=made.local, defense=made.defense, quiet=made.quiet)
            begun = time.process_time()
            score.scores(made.uploads(both, 1, RUNS, "fast"), 1)
            fast = time.process_time() - begun
            begun = time.process_time()
            score.scores(slow.uploads(both, 1, SLOW, "slow"), 1)
            each = (time.process_time() - begun) * RUNS / SLOW
            print(f"{made.defense.name:<16} batch {batch:>2}  {RUNS} runs {fast:6.1f} s at once, "
                  f"{each:6.1f} s one by one, {each / fast:5.1f} times")  # fmt: skip
            figures[f"{made.defense.name}, batch {batch}: times faster than one by one"] = (
                each / fast
            )
    setup = prepare(configs.read(None, [*settings, f"defense={CHAINS[0]}"]))
    for name in ("natural", "in-domain", "free"):
        begun = time.process_time()
        found = craft(setup, name)
        spent = time.process_time() - begun
        print(f"{name:<10} {spent:6.1f} s, Δ/C {found.apart / 0.9:.3f}")
        figures[f"crafting a {name} canary, CPU seconds"] = spent
    record("audits", figures)


if __name__ == "__main__":
    main()
