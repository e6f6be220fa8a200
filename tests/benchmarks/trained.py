"""Label attacks where evidence is weak: trained models, many local steps, steps that are too large.

    uv run python -m tests.benchmarks.trained --trials 24 [--only ViT]

Clients of even labels (`iid`), of half one class and a quarter of another (`unb`), and of labels
from a Dirichlet distribution with α = 0.5. Prints a Markdown table: mean ASR in % of eb-gls, of
even counts, of the best published attack after the fact, and the mean difference of eb-gls from
both with its standard error over victims.
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn

from adversary.attacks import ATTACKS
from adversary.grading.counts import grade as grade_counts
from fedsim.core.errors import NotApplicable
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from tests.benchmarks import labels
from tests.benchmarks.labels import Cell, fedavg, trial
from tests.benchmarks.record import record
from tests.benchmarks.small_models import Shape, Transposed

PEERS = ("llg", "llg-star", "llg-plus", "llbg", "ilrg", "zlg-plus", "dimitrov", "rlu")
STEPS = 150
MODELS = 5  # that the victims of a cell are sent


class Mixing(nn.Module):
    """A layer of an MLP-Mixer: over tokens, then over channels, each beside a skip."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        across = lambda size: nn.Sequential(
            nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size)
        )
        self.tokens = nn.Sequential(nn.LayerNorm(width), Transposed(), across(tokens), Transposed())
        self.channels = nn.Sequential(nn.LayerNorm(width), across(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(x)
        return x + self.channels(x)


class Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def mixer(input_shape: Shape, num_classes: int) -> nn.Module:
    """An MLP-Mixer of two layers on patches of 7 × 7 pixels."""
    width, tokens = 32, (input_shape[1] // 7) * (input_shape[2] // 7)
    return nn.Sequential(
        nn.Conv2d(input_shape[0], width, 7, 7), nn.Flatten(2), Transposed(),
        Mixing(tokens, width), Mixing(tokens, width), nn.LayerNorm(width), Mean(),
        nn.Linear(width, num_classes),
    )  # fmt: skip


def nested(input_shape: Shape, num_classes: int) -> nn.Module:
    """An MLP whose layers stand in modules of modules."""
    layer = lambda i, o: nn.Sequential(nn.Sequential(nn.Linear(i, o)), nn.Sequential(nn.ReLU()))
    body = nn.Sequential(nn.Flatten(), nn.Sequential(layer(prod(input_shape), 64), layer(64, 32)))
    return nn.Sequential(body, nn.Sequential(nn.Sequential(nn.Linear(32, num_classes))))


ARCHITECTURES = {
    "ViT": "tests.benchmarks.small_models:vit",
    "Mixer": "tests.benchmarks.trained:mixer",
    "nested MLP": "tests.benchmarks.trained:nested",
}


def _known(title: str, *names: str) -> dict[str, Cell]:
    """Return cells of `tests.benchmarks.labels`, with their victims."""
    return {f"{title}, {labels.CELLS[name].labels}": labels.CELLS[name] for name in names}


def _spread(title: str, name: str) -> dict[str, Cell]:
    return _known(title, *(f"{name} {kind}" for kind in ("iid", "unb", "0.5")))


def _architectures() -> Iterator[tuple[str, Cell]]:
    for title, model in ARCHITECTURES.items():
        for kind in ("iid", "0.5"):
            cell = Cell(f"{title} {kind}", model=model, steps=STEPS, labels=kind)
            yield f"{title}, {STEPS} steps, one gradient, {kind}", replace(cell, size=32)
            epoch = replace(cell, name=f"{title} epoch {kind}", **fedavg(80, 16, 1, 0.05))
            yield f"{title}, {STEPS} steps, an epoch, {kind}", epoch


CELLS: Mapping[str, Cell] = {
    **_spread("LeNet-5, 200 steps, 5 epochs", "trained 64,8,5,.05"),
    **_spread("LeNet-5, 60 steps, 5 epochs", "half-trained 64,8,5,.05"),
    **_spread("sigmoid CNN, lr 0.1", "lenet 80,8,1,.1"),
    **dict(_architectures()),
    **_known("80 % pruned, batch of 8", "pruned 0.8 unb 8"),
    "noise 0.3, one gradient of 64, iid": Cell("noise 0.3 iid", labels="iid", size=64, noise=0.3),
    "noise 0.3, one gradient of 64, unb": Cell("noise 0.3 unb", size=64, noise=0.3),
}


# Where a published attack is ahead.
SHORT = {"sigmoid CNN, lr 0.1, unb", "Mixer, 150 steps, an epoch, iid"}


def rates(cell: Cell, trials: int) -> dict[str, Tensor]:
    """Return the ASR of every attack that answers, in %, for each victim.

    Victims that were sent the same model share what is computed of it, as in a round.
    """
    memories = [Memory() for _ in range(MODELS)]
    rows: dict[str, list[float]] = {}
    for seed in range(trials):
        view, auxiliary, truth = trial(cell, seed, model_seeds=MODELS)
        view = replace(view, memory=memories[seed % MODELS])
        for name in ("eb-gls", "uniform", *PEERS):
            with suppress(NotApplicable):
                counts = ATTACKS[name].infer(view, auxiliary, generator(seed, name))
                rows.setdefault(name, []).append(100 * grade_counts(counts, truth)["asr"])
    return {name: torch.tensor(values) for name, values in rows.items()}


def best_peer(rates: Mapping[str, Tensor]) -> str:
    """Return the published attack with the best mean."""
    return max((k for k in rates if k in PEERS), key=lambda k: float(rates[k].mean()))


def difference(rates: Mapping[str, Tensor], other: str) -> tuple[float, float]:
    """Return eb-gls's mean gain over another attack, and the gain's standard error."""
    gain = rates["eb-gls"] - rates[other]
    return float(gain.mean()), float(gain.std()) / len(gain) ** 0.5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--only", default="", help="cells whose name holds this")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("| setting, labels | `eb-gls` | `uniform` | gain | best published | gain |")
    print("| --- |" + " --- |" * 5)
    for title, cell in CELLS.items():
        if chosen.only not in title:
            continue
        results = rates(cell, chosen.trials)
        best = best_peer(results)
        mean = {name: float(values.mean()) for name, values in results.items()}
        gains = [
            f"{g:+.1f} ± {e:.1f}" for g, e in (difference(results, o) for o in ("uniform", best))
        ]
        print(
            f"| {title} | {mean['eb-gls']:.1f} | {mean['uniform']:.1f} | {gains[0]} "
            f"| {mean[best]:.1f} `{best}` | {gains[1]} |",
            flush=True,
        )
        record("trained", {f"{title}: {name}, ASR, %": value for name, value in mean.items()})


if __name__ == "__main__":
    main()
