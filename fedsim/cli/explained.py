"""What `fedsim explain` prints of architectures: a table, their layers and obstacles."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedsim.cli.console import print_hanging
from fedsim.core.local_training import TITLES

if TYPE_CHECKING:
    from rich.console import Console

    from fedsim.core.types import LocalTraining
    from fedsim.explain import Explanation

HEADS = ("c(M)", "rank of J", "condition", "predicted", "s")


def protocol(local: "LocalTraining", num_examples: int, noise: float) -> str:
    """Return how clients train, in words."""
    what = "a float32 gradient" if local.upload == "gradient" else "float32 weights"
    text = f"Clients upload {what}"
    if local.upload == "weights":
        text += f" after {local.epochs} epoch{'s' * (local.epochs > 1)} at lr {local.lr:g}"
        text += "" if local.optimizer == "sgd" else f" of {TITLES[local.optimizer]}"
    text += f", {num_examples} example{'s' * (num_examples > 1)} in batches of {local.batch_size}"
    return text + (f", noise of {noise:g} on every entry" if noise else "")


def cells(explanation: "Explanation") -> list[str]:
    """Return one row of the table."""
    spectrum = explanation.spectrum
    rank = condition = psnr = "–"
    seconds = explanation.seconds
    if spectrum is not None:
        about = "≥ " * (spectrum.hidden is None and spectrum.rank < spectrum.probed)
        some = (
            f" of {spectrum.probed} random"
            if spectrum.probed < spectrum.unknowns
            else f" of {spectrum.unknowns}"
        )
        beyond = spectrum.condition >= 1 / spectrum.edge
        least = "≥ " * (spectrum.probed < spectrum.unknowns or bool(about) or beyond)
        rank, condition = f"{about}{spectrum.rank}{some}", f"{least}{spectrum.condition:.3g}"
        seconds += spectrum.seconds
    if explanation.psnr is not None:
        psnr = f"{explanation.psnr:.1f} dB"
    metric = "–" if explanation.metric is None else f"{explanation.metric:.0f}"
    return [
        explanation.name,
        metric,
        rank,
        condition,
        psnr,
        f"{seconds:.1f}",
        explanation.verdict.text,
    ]


def print_explained(explained: "Sequence[Explanation]", console: "Console", training: str) -> None:
    """Print the table of architectures, their layers where few are asked for, and obstacles."""
    from rich.table import Table

    shape = "×".join(map(str, explained[0].shape))
    console.print(f"One example of shape {shape}. {training}.\n", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for head in HEADS:
        table.add_column(head, justify="right")
    table.add_column("verdict")
    for explanation in explained:
        table.add_row(*cells(explanation))
    console.print(table)
    console.print(
        "\nc(M) is the papers' metric for recursion. J = d(gradient)/d(input) is what a joint "
        "attack can use.\nPredicted is the PSNR that J and the precision of one upload of one "
        "example allow.",
        style="dim",
        soft_wrap=True,
    )
    for explanation in explained:
        _print_one(explanation, console)


def _print_one(explanation: "Explanation", console: "Console") -> None:
    """Print an architecture's layers, its verdict's reasons, and what makes attacks fail."""
    console.print(
        f"\n{explanation.name}, {explanation.parameters:,} parameters", style="bold", markup=False
    )
    _print_layers(explanation, console)
    for reason in explanation.verdict.reasons:
        print_hanging(console, "  ", reason)
    print_hanging(console, "  ", f"auto-reconstruct {explanation.plan}")
    console.print("  Label attacks:")
    for sentence in explanation.labels:
        print_hanging(console, "  · ", sentence)
    if explanation.obstacles:
        console.print("  What makes an attack fail:")
    for it in explanation.obstacles:
        print_hanging(console, "  · ", str(it))


def _print_layers(explanation: "Explanation", console: "Console") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("  layer", no_wrap=True)
    for head in ("equations", "unknowns", "rank", "open", "under no window"):
        table.add_column(head, justify="right")
    shown = (
        explanation.systems
        if len(explanation.systems) <= 12
        else [it for it in explanation.systems if it.deficiency]
    )
    for it in shown:
        numbers: tuple[Any, ...] = (it.rows, it.unknowns, it.rank, it.deficiency, it.dead)
        table.add_row(f"  {it.name} {it.kind}", *map(str, numbers))
    if shown:
        console.print(table)
    if others := explanation.others:
        more = f" and {len(others) - 6} more" if len(others) > 6 else ""
        names = ", ".join(others[:6]) + more
        print_hanging(console, "  ", f"No closed form, in J alone: {names}")
    if len(shown) < len(explanation.systems):
        left = len(explanation.systems) - len(shown)
        console.print(f"  {left} more layers whose own system has full rank")
