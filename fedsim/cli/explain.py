"""`fedsim explain`: what architectures give away, as a table, a picture, or JSON."""

from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fedsim.core.errors import ConfigError

if TYPE_CHECKING:
    from fedsim.core.types import LocalTraining
    from fedsim.explain import Explanation

HEADS = ("c(M)", "rank of J", "condition", "predicted", "s")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def explain(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL…", help="Names, or package.module:function.")
    ],
    *,
    input_: Annotated[
        str, typer.Option("--input", metavar="CxHxW", help="Shape of one example.")
    ] = "3x32x32",
    classes: Annotated[int, typer.Option(help="Number of labels.")] = 10,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as model.hidden=64, or seed=1."),
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate of a client.")] = 0.1,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per local step.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Local epochs.")] = 1,
    examples: Annotated[
        int | None, typer.Option(min=1, help="A client's; one batch without.")
    ] = None,
    upload: Annotated[str, typer.Option(help="weights or gradient.")] = "weights",
    noise: Annotated[float, typer.Option(help="On every entry of the gradient.")] = 0.0,
    directions: Annotated[
        int | None, typer.Option(min=0, help="Of the input, to look at; 0: closed forms alone.")
    ] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="HTML file with pictures.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of text.")
    ] = False,
) -> None:
    """Say what architectures give away of an example, without any data."""
    shape = parse_shape(input_)
    checked(classes, lr, noise, upload, epochs)
    from rich.progress import Progress

    from fedsim import config as configs
    from fedsim import explain as explaining
    from fedsim.core.types import LocalTraining
    from fedsim.report.explain import write_explain_report

    local = LocalTraining(lr, batch_size, epochs, "weights" if upload == "weights" else "gradient")
    count, told = examples or batch_size, []
    with Progress(console=err, transient=True, disable=as_json) as bar:
        for name in models:
            task = bar.add_task(name, total=None)
            shown: Callable[[int, int], None] = lambda done, total, task=task: bar.update(
                task, completed=done, total=total
            )
            config = configs.read(None, [f"model={name}", *(set_ or ())])
            one = explaining.explain(
                config, shape, classes, local, num_examples=count, noise=noise,
                directions=directions, on_chunk=shown,
            )  # fmt: skip
            told.append(one)
            bar.remove_task(task)
    said = protocol(local, count, noise)
    if out_ is not None:
        rows = [cells(one) for one in told]
        write_explain_report(told, out_, protocol=said, heads=HEADS, rows=rows)
    if as_json:
        path = None if out_ is None else str(out_)
        out.print_json(data={"models": [one.summary() for one in told], "report": path})
        return
    print_explained(told, out, said)
    again = f"fedsim explain {' '.join(models)} --input {input_} --out explain.html"
    if out_ is not None:
        out.print(f"\nReport   {out_}", soft_wrap=True)
        again = f"open {out_} in a browser"
    out.print(f"{'' if out_ else chr(10)}Next     {again}", soft_wrap=True)


def parse_shape(text: str, flag: str = "--input") -> tuple[int, ...]:
    """Return the shape in `3x32x32`.

    Raises:
        ConfigError: It is none.
    """
    try:
        shape = tuple(int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ConfigError(f"{flag}: must be whole numbers like 3x32x32, got '{text}'")
    return shape


def checked(classes: int, lr: float, noise: float, upload: str, epochs: int) -> None:
    """Check what typer does not.

    Raises:
        ConfigError: A value is out of range.
    """
    if classes < 2:
        raise ConfigError(f"--classes: must be at least 2, got {classes}")
    for name, value, low in (("--lr", lr, 0.0), ("--noise", noise, -1e-300)):
        if not isfinite(value) or value <= low:
            rule = "above 0" if name == "--lr" else "at least 0"
            raise ConfigError(f"{name}: must be {rule}, got {value:g}")
    if upload not in ("weights", "gradient"):
        raise ConfigError(f"--upload: must be weights or gradient, got '{upload}'")
    if upload == "gradient" and epochs != 1:
        raise ConfigError(f"--epochs: must be 1 with --upload gradient, got {epochs}")


def protocol(local: "LocalTraining", num_examples: int, noise: float) -> str:
    """Return how clients train, in words."""
    what = "a float32 gradient" if local.upload == "gradient" else "float32 weights"
    said = f"Clients upload {what}"
    if local.upload == "weights":
        said += f" after {local.epochs} epoch{'s' * (local.epochs > 1)} at lr {local.lr:g}"
    said += f", {num_examples} example{'s' * (num_examples > 1)} in batches of {local.batch_size}"
    return said + (f", noise of {noise:g} on every entry" if noise else "")


def cells(one: "Explanation") -> list[str]:
    """Return one row of the table."""
    seen = one.spectrum
    rank = condition = psnr = "–"
    seconds = one.seconds
    if seen is not None:
        unsure = "≥ " if not seen.sharp else "≈ " if seen.sketched else ""
        about = unsure * (seen.rank < seen.probed)
        some = (
            f" of {seen.probed} random" if seen.probed < seen.unknowns else f" of {seen.unknowns}"
        )
        least = "≥ " * (seen.probed < seen.unknowns or bool(about and not seen.sharp))
        rank, condition = f"{about}{seen.rank}{some}", f"{least}{seen.condition:.3g}"
        seconds += seen.seconds
    if one.psnr is not None:
        psnr = f"{one.psnr:.1f} dB"
    metric = "–" if one.metric is None else f"{one.metric:.0f}"
    return [
        one.name, metric, rank, condition, psnr, f"{seconds:.1f}", one.verdict,
    ]  # fmt: skip


def print_explained(told: "Sequence[Explanation]", console: "Console", said: str) -> None:
    """Print the table of architectures, their layers where few are asked for, and obstacles."""
    from rich.table import Table

    shape = "×".join(map(str, told[0].shape))
    console.print(f"One example of shape {shape}. {said}.\n", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for head in HEADS:
        table.add_column(head, justify="right")
    table.add_column("verdict")
    for one in told:
        table.add_row(*cells(one))
    console.print(table)
    console.print(
        "\nc(M): the papers' metric of recursion. J: d(gradient)/d(input), what a joint attack can "
        "use.\nPredicted: PSNR, from J and the precision of one upload of one example.",
        style="dim", soft_wrap=True,
    )  # fmt: skip
    for one in told:
        console.print(f"\n{one.name}, {one.parameters:,} parameters", style="bold", markup=False)
        _print_layers(one, console)
        for reason in one.reasons:
            console.print(f"  {reason}", markup=False)
        if one.obstacles:
            console.print("  What makes an attack fail:")
        for it in one.obstacles:
            console.print(f"  · {it}", markup=False)


def _print_layers(one: "Explanation", console: "Console") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("  layer", no_wrap=True)
    for head in ("equations", "unknowns", "rank", "open", "under no window"):
        table.add_column(head, justify="right")
    shown = one.systems if len(one.systems) <= 12 else [it for it in one.systems if it.deficiency]
    for it in shown:
        numbers: tuple[Any, ...] = (it.rows, it.unknowns, it.rank, it.deficiency, it.dead)
        table.add_row(f"  {it.name} {it.kind}", *map(str, numbers))
    if shown:
        console.print(table)
    if len(shown) < len(one.systems):
        left = len(one.systems) - len(shown)
        console.print(f"  {left} more layers whose own system has full rank")
