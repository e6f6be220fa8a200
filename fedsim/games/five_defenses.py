"""The five defenses of the seed paper, each at several strengths, beside none.

Z. Li, A. Lowy, J. Liu, T. Koike-Akino, K. Parsons, B. Malin, Y. Wang, "Analyzing Inference Privacy
Risks Through Gradients in Machine Learning", CCS 2024: pruning, signs, adversarial perturbation, an
information bottleneck, differential privacy. The strengths are fedsim's own.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fedsim.config import Cell, cells
from fedsim.config.grid import Over

STRENGTHS: dict[tuple[str, str], tuple[float, ...]] = {
    ("prune", "rate"): (0.9, 0.99, 0.999),
    ("sign", ""): (0.0,),
    ("perturb", "strength"): (0.5, 1.0, 2.0),
    ("vib", "beta"): (0.001, 0.01, 0.1, 1.0),
    ("dp-sgd", "noise"): (0.01, 0.1, 1.0, 2.0),
}
BOTTLENECK = 16  # features of vib's code, where the config names none


def five_defenses(
    path: Path | None, settings: Sequence[str] = (), overs: Iterable[Over] = ()
) -> list[Cell]:
    """Return a config without a defense, and one for each defense and strength.

    Args:
        path: TOML file that all share; None for the default settings.
        settings: `key=value` that all share. With vib the model has a bottleneck too.
        overs: Keys and their values: all of it for each combination.

    Raises:
        ConfigError: One of the configs is wrong, or the model has no option `bottleneck`.
    """
    overs = list(overs)
    shared = cells(path, settings)[0].config
    has_bottleneck = bool(shared.model.options.get("bottleneck"))
    grid = []
    for name, chosen in _chosen(has_bottleneck=has_bottleneck):
        for cell in cells(path, [*settings, *chosen], overs):
            grid.append(Cell(f"{cell.name}_{name}" if overs else name, cell.config))
    return grid


def _chosen(*, has_bottleneck: bool) -> list[tuple[str, list[str]]]:
    """Return each setting's name, and what sets it."""
    chosen = [("none", ["defense=[]"])]
    for (defense, option), values in STRENGTHS.items():
        more = [f"model.bottleneck={BOTTLENECK}"] if defense == "vib" and not has_bottleneck else []
        for value in values:
            given = f", {option}={value}" if option else ""
            name = f"{defense}-{option}={value:g}" if option else defense
            chosen.append((name, [f'defense=[{{name="{defense}"{given}}}]', *more]))
    return chosen
