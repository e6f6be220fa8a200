"""`fedsim explain`: what architectures give away, as a table, a picture, or JSON."""

import shlex
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from fedsim.cli.console import err, out, print_next, print_report
from fedsim.cli.explained import HEADS, cells, print_explained, protocol
from fedsim.cli.options import Json, parse_shape
from fedsim.core.errors import ConfigError

if TYPE_CHECKING:
    from fedsim.core.local_training import Optimizer
    from fedsim.explain import Explanation


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
    optimizer: Annotated[str, typer.Option(help="Of a client: sgd, adam or adamw.")] = "sgd",
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
    shape = parse_shape(input_, "--input")
    _check(classes, lr, noise, upload, epochs)
    taking = _optimizer(optimizer, upload)
    from fedsim.core.types import LocalTraining

    uploaded = "weights" if upload == "weights" else "gradient"
    local = LocalTraining(lr, batch_size, epochs, uploaded, optimizer=taking)
    count = examples or batch_size
    if vocabulary is not None:
        from fedsim.cli.explain_texts import print_texts

        print_texts(models, (shape, vocabulary), local, count, settings=set_ or (), as_json=as_json)
        return
    explained = _explained(
        models,
        set_ or (),
        quiet=as_json,
        shape=shape,
        num_classes=classes,
        local=local,
        num_examples=count,
        noise=noise,
        directions=directions,
    )
    training = protocol(local, count, noise)
    if out_ is not None:
        from fedsim.report.explain import write_explain_report

        rows = [cells(it) for it in explained]
        write_explain_report(explained, out_, protocol=training, heads=HEADS, rows=rows)
    if as_json:
        path = None if out_ is None else str(out_)
        out.print_json(data={"models": [it.summary() for it in explained], "report": path})
        return
    print_explained(explained, out, training)
    out.print()
    if out_ is not None:
        print_report(out_)
    else:
        print_next(f"fedsim explain {shlex.join(models)} --input {input_} --out explain.html")


def _explained(
    models: Sequence[str], settings: Sequence[str], *, quiet: bool, **protocol: Any
) -> "list[Explanation]":
    """Explain models, show how far it is, and return them in order.

    Args:
        models: Their names.
        settings: More settings of each config.
        quiet: Show nothing.
        protocol: Further arguments of `fedsim.explain.explain`.
    """
    from fedsim import config as configs
    from fedsim.cli.looking import Looking
    from fedsim.explain import explain

    explained = []
    with Looking(err, quiet=quiet) as looking:
        for name in models:
            config = configs.read(None, [f"model={name}", *settings])
            looking.begin(name)
            explained.append(explain(config, on_chunk=looking.step, **protocol))
    return explained


def _check(classes: int, lr: float, noise: float, upload: str, epochs: int) -> None:
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


def _optimizer(name: str, upload: str) -> "Optimizer":
    """Return the optimizer of that name.

    Raises:
        ConfigError: There is none, or it takes no step before an upload.
    """
    from fedsim.core.local_training import Optimizer

    for each in get_args(Optimizer):
        if each == name:
            if upload == "gradient" and name != "sgd":
                raise ConfigError(f"--optimizer: must be sgd with --upload gradient, got '{name}'")
            return each
    raise ConfigError(f"--optimizer: must be {', '.join(get_args(Optimizer))}, got '{name}'")
