"""Label attacks under noise, with and without another defense: eb-gls beside shrunken peers.

    uv run python -m tests.benchmarks.noise --trials 60 [--labels iid] [--defense sign] [--std 1]

An untrained LeNet-5 on MNIST, one gradient of 64 examples. A peer's counts are mixed with even ones
by 30 % and by 60 %. Prints ASR (%) of eb-gls, of the best other, and the mean difference of the two
with its standard error over victims; then the mean difference from what is best on every other
victim, measured on the rest, which choosing after the fact does not favour.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from adversary.attacks import ATTACKS
from adversary.grading.counts import grade as grade_counts
from adversary.labels.counts import round_counts
from defenses import Defense
from defenses.chain import chain
from defenses.clip import clip
from defenses.gaussian import gaussian
from defenses.quantise import quantise
from defenses.sign import sign
from defenses.sparsify import sparsify
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.types import View
from tests.benchmarks.labels import Cell, trial
from tests.benchmarks.record import record

STDS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
MODELS = 5  # that the victims of a cell are sent
PEERS, MIXED = ("llbg", "rlu", "llg-plus"), (0.3, 0.6)
DEFENSES: Mapping[str, Callable[[float], Defense]] = {
    "none": lambda std: gaussian(std=std),
    "clip": lambda std: chain(clip(bound=1.0), gaussian(std=std)),
    "sign": lambda std: chain(gaussian(std=std), sign()),
    "quantise": lambda std: chain(gaussian(std=std), quantise(bits=4)),
    "sparsify": lambda std: chain(gaussian(std=std), sparsify(rate=0.9)),
}


def answers(view: View, auxiliary, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the counts of eb-gls, of its peers, and of the peers mixed with even counts."""
    for name in ("eb-gls", "uniform", *PEERS):
        counts = ATTACKS[name].infer(view, auxiliary, generator(seed, name))
        yield name, counts
        for share in MIXED if name in PEERS else ():
            total = int(counts.sum())
            mixed = (1 - share) * counts.double() + share * total / len(counts)
            yield f"{name}, {100 * share:.0f} % even", round_counts(mixed, total)


def measured(name: str, std: float, labels: str, trials: int) -> dict[str, Tensor]:
    """Return the ASR of every answer, in %, for each victim.

    Victims that were sent the same model share what is computed of it, as in a round.
    """
    cell, rows = Cell(f"noise {std} {labels} 64", size=64, labels=labels), {}
    memories = [Memory() for _ in range(MODELS)]
    for seed in range(trials):
        view, auxiliary, truth = trial(cell, seed, model_seeds=MODELS)
        if std or name != "none":
            defense = DEFENSES[name](std) if std else DEFENSES[name](1e-30)
            delta, update = view.latest.update.delta, view.latest.update
            changed, _ = defense.apply(delta, defense.init(delta), generator(seed, name, "noise"))
            view = View([replace(view.latest, update=replace(update, delta=changed))])
        view = replace(view, memory=memories[seed % MODELS])
        for who, counts in answers(view, auxiliary, seed):
            rows.setdefault(who, []).append(100 * grade_counts(counts, truth)["asr"])
    return {who: torch.tensor(values) for who, values in rows.items()}


def line(rows: Mapping[str, Tensor]) -> tuple[str, float, float]:
    """Return the best other answer, eb-gls's mean gain over it, and the gain's standard error."""
    means = {who: float(values.mean()) for who, values in rows.items() if who != "eb-gls"}
    best = max(means, key=lambda who: means[who])
    gain = rows["eb-gls"] - rows[best]
    return best, float(gain.mean()), float(gain.std()) / len(gain) ** 0.5


def split(rows: Mapping[str, Tensor]) -> float:
    """Return eb-gls's mean gain over the best other answer of each half, on the other half."""
    halves = [{who: values[k::2] for who, values in rows.items()} for k in (0, 1)]
    gains = [
        on["eb-gls"] - on[line(of)[0]] for of, on in zip(halves, reversed(halves), strict=True)
    ]
    return float(torch.cat(gains).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--labels", default="unb")
    parser.add_argument("--defense", default=",".join(DEFENSES))
    parser.add_argument("--std", default=",".join(map(str, STDS)))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.defense.split(","):
        for std in map(float, asked.std.split(",")):
            rows = measured(name, std, asked.labels, asked.trials)
            best, gain, error = line(rows)
            mean = lambda who, rows=rows: float(rows[who].mean())
            print(
                f"{name:9} σ {std:<5g} eb-gls {mean('eb-gls'):5.1f}  uniform {mean('uniform'):5.1f}"
                f"  {best} {mean(best):5.1f}  difference {gain:+.1f} ± {error:.1f}"
                f"  split {split(rows):+.1f}",
                flush=True,
            )
            cell = f"{name}, noise {std:g}, {asked.labels}"
            record("noise", {f"{cell}: {who}, ASR, %": mean(who) for who in rows})


if __name__ == "__main__":
    main()
