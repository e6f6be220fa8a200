"""`fedsim explain`: what architectures give away, as a table, a picture, or JSON."""

import shlex
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.console import err, out, print_next, print_report
from fedsim.cli.options import Json
from fedsim.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from fedsim.core.types import LocalTraining
    from fedsim.explain import Explanation

HEADS = ("c(M)", "rank of J", "condition", "predicted", "s")


def explain(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…", help="A name in `fedsim list models`, or package.module:function."
        ),
    ],
    *,
    input_: Annotated[
        str, typer.Option("--input", metavar="CxHxW", help="Shape of one example.")
    ] = "3x32x32",
    classes: Annotated[int, typer.Option(help="Number of labels.")] = 10,
    vocabulary: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Number of token ids; explains language models, of texts of --input tokens.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, such as model.hidden=64 or seed=1.",
        ),
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate of a client.")] = 0.1,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per local step.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Local epochs.")] = 1,
    examples: Annotated[
        int | None, typer.Option(min=1, help="Examples of a client (one batch if omitted).")
    ] = None,
    upload: Annotated[
        str, typer.Option(help="What a client uploads: weights or gradient.")
    ] = "weights",
    noise: Annotated[
        float, typer.Option(help="Standard deviation of noise on the gradient.")
    ] = 0.0,
    directions: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of input directions to test (all if that is fast; 0: closed forms only).",
        ),
    ] = None,
    out_: Annotated[
        Path | None, typer.Option("--out", help="HTML file with pictures (none if omitted).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what an architecture reveals about an example, without any data."""
    shape = parse_shape(input_)
    checked(classes, lr, noise, upload, epochs)
    from rich.markup import escape
    from rich.progress import Progress

    from fedsim import config as configs
    from fedsim import explain as explaining
    from fedsim.core.types import LocalTraining
    from fedsim.report.explain import write_explain_report

    local = LocalTraining(lr, batch_size, epochs, "weights" if upload == "weights" else "gradient")
    count, explained = examples or batch_size, []
    if vocabulary is not None:
        from fedsim.cli.explain_texts import print_texts

        print_texts(models, (shape, vocabulary), local, count, settings=set_ or (), as_json=as_json)
        return
    with Progress(console=err, transient=True, disable=as_json) as bar:
        for name in models:
            task = bar.add_task(escape(name), total=None)
            shown: Callable[[int, int], None] = lambda done, total, task=task: bar.update(
                task, completed=done, total=total
            )
            config = configs.read(None, [f"model={name}", *(set_ or ())])
            explanation = explaining.explain(
                config,
                shape,
                classes,
                local,
                num_examples=count,
                noise=noise,
                directions=directions,
                on_chunk=shown,
            )
            explained.append(explanation)
            bar.remove_task(task)
    training = protocol(local, count, noise)
    if out_ is not None:
        rows = [cells(it) for it in explained]
        write_explain_report(explained, out_, protocol=training, heads=HEADS, rows=rows)
    if as_json:
        path = None if out_ is None else str(out_)
        out.print_json(data={"models": [it.summary() for it in explained], "report": path})
        return
    print_explained(explained, out, training)
    again = f"fedsim explain {shlex.join(models)} --input {input_} --out explain.html"
    out.print()
    if out_ is not None:
        print_report(out_)
        return
    print_next(again)


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
    text = f"Clients upload {what}"
    if local.upload == "weights":
        text += f" after {local.epochs} epoch{'s' * (local.epochs > 1)} at lr {local.lr:g}"
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
        console.print(
            f"\n{explanation.name}, {explanation.parameters:,} parameters",
            style="bold",
            markup=False,
        )
        _print_layers(explanation, console)
        for reason in explanation.verdict.reasons:
            console.print(f"  {reason}", markup=False)
        console.print(f"  auto-reconstruct {explanation.plan}", markup=False)
        console.print("  Label attacks:")
        for sentence in explanation.labels:
            console.print(f"  · {sentence}", markup=False)
        if explanation.obstacles:
            console.print("  What makes an attack fail:")
        for it in explanation.obstacles:
            console.print(f"  · {it}", markup=False)


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
        console.print(f"  No closed form, in J alone: {names}", markup=False)
    if len(shown) < len(explanation.systems):
        left = len(explanation.systems) - len(shown)
        console.print(f"  {left} more layers whose own system has full rank")
