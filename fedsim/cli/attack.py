"""`fedsim attack`: a run of fedsim's own, or the tape of somebody else's Flower app."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.answering import Answering
from fedsim.cli.assumptions import print_assumptions
from fedsim.cli.console import err, out, print_next, print_report, quoted
from fedsim.cli.eta import Eta
from fedsim.cli.options import Allow, Json, Strict, parse_shape
from fedsim.cli.tables import print_attacks
from fedsim.cli.unanswered import print_unanswered
from fedsim.core.errors import ConfigError

if TYPE_CHECKING:
    from pyarrow import Table

    from fedsim.config import Part
    from fedsim.federation.foreign import App

PANEL = "For another app's recording (saved in its config.toml, so give them once)"


def _about_app(flag: str, text: str, **options: Any) -> Any:
    """Return an option that describes another app."""
    return typer.Option(flag, help=text, rich_help_panel=PANEL, **options)


def attack(
    recording: Annotated[
        Path,
        typer.Argument(
            metavar="RECORDING",
            help="A run folder, or a tape that strategies.Recording wrote in another Flower app.",
        ),
    ],
    *,
    with_: Annotated[
        str | None,
        typer.Option("--with", metavar="NAME[,NAME]", help="Attacks to run; must be given."),
    ] = None,
    model: Annotated[
        str | None, _about_app("--model", "Architecture of the model.", metavar="MODULE:NAME")
    ] = None,
    num_classes: Annotated[int | None, _about_app("--num-classes", "Number of labels.")] = None,
    local_lr: Annotated[
        float | None, _about_app("--local-lr", "Learning rate of the clients' SGD.")
    ] = None,
    local_batch_size: Annotated[
        int | None, _about_app("--local-batch-size", "Batch size of the clients.")
    ] = None,
    local_epochs: Annotated[
        int | None, _about_app("--local-epochs", "Local epochs per round (1 if omitted).")
    ] = None,
    local_momentum: Annotated[
        float | None, _about_app("--local-momentum", "Momentum of the SGD (0 if omitted).")
    ] = None,
    local_label_smoothing: Annotated[
        float | None,
        _about_app("--local-label-smoothing", "Label smoothing of the loss (0 if omitted)."),
    ] = None,
    local_optimizer: Annotated[
        str | None,
        _about_app(
            "--local-optimizer",
            "Optimizer of the clients (sgd if omitted). Attacks read every upload as SGD's.",
            metavar="NAME",
        ),
    ] = None,
    head_weight: Annotated[
        str | None,
        _about_app(
            "--head-weight",
            "Array on tape that is the last layer's weight, in place of --model.",
            metavar="NAME",
        ),
    ] = None,
    head_bias: Annotated[
        str | None,
        _about_app("--head-bias", "Array on tape that is its bias.", metavar="NAME"),
    ] = None,
    arrays: Annotated[
        str | None,
        _about_app(
            "--arrays",
            "Which array on tape is which of the model's: a TOML file, or in-order.",
            metavar="FILE",
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        _about_app(
            "--input-shape",
            "Shape of one example (may be omitted if only one size fits the model).",
            metavar="CxHxW",
        ),
    ] = None,
    vocabulary: Annotated[
        int | None, _about_app("--vocabulary", "Number of token ids, of a model of texts.")
    ] = None,
    task: Annotated[
        str | None,
        _about_app(
            "--task",
            "What a model of texts learns: label, or next for the next token (label if omitted).",
            metavar="TASK",
        ),
    ] = None,
    auxiliary: Annotated[
        str | None,
        _about_app(
            "--auxiliary",
            "The adversary's own examples: a data set or MODULE:FUNCTION.",
            metavar="NAME",
        ),
    ] = None,
    auxiliary_root: Annotated[
        str | None, _about_app("--auxiliary-root", "Folder of that data set.", metavar="DIR")
    ] = None,
    auxiliary_limit: Annotated[
        int | None, _about_app("--auxiliary-limit", "Number of its examples (all if omitted).")
    ] = None,
    truth: Annotated[
        str | None,
        _about_app("--truth", "Ground truth for grading, saved by mods.keep_truth.", metavar="DIR"),
    ] = None,
    device: Annotated[
        str,
        typer.Option("--device", help="Where attacks run the model: cpu, cuda, mps, or auto."),
    ] = "cpu",
    allow: Allow = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Attack a recording without training."""
    from fedsim import api
    from fedsim.federation.foreign import App
    from fedsim.run import outcomes

    app = App(
        model=model,
        num_classes=num_classes,
        lr=local_lr,
        batch_size=local_batch_size,
        epochs=local_epochs,
        momentum=local_momentum,
        label_smoothing=local_label_smoothing,
        optimizer=local_optimizer,
        head_weight=head_weight,
        head_bias=head_bias,
        arrays=arrays,
        input_shape=None if input_shape is None else parse_shape(input_shape, "--input-shape"),
        vocabulary=vocabulary,
        task=task,
        auxiliary=auxiliary,
        auxiliary_root=auxiliary_root,
        auxiliary_limit=auxiliary_limit,
        truth=truth,
    )
    parts = _parts(recording, _names(recording, app, with_ or ""))
    rows = _attacked(recording, parts, app, allow or (), device=device, quiet=as_json)
    means, answers = api.means(rows), api.answers(rows)
    if as_json:
        unanswered = outcomes.as_json(answers)
        result = {"run": str(recording), "rows": rows.num_rows}
        out.print_json(data={**result, "attacks": means, "unanswered": unanswered})
    else:
        print_attacks(means, out)
        print_unanswered(answers)
        _print_end(recording)
    if strict:
        outcomes.check_answered(answers)


def _attacked(
    recording: Path,
    parts: "list[Part]",
    app: "App",
    allow: Sequence[str],
    *,
    device: str,
    quiet: bool,
) -> "Table":
    """Attack with a bar of the rounds; return the new rows."""
    from rich.markup import escape
    from rich.progress import Progress

    from fedsim import api
    from fedsim.core.progress import listening

    eta = Eta(1, err)
    with Progress(console=err, transient=True, disable=quiet) as bar:
        task = bar.add_task("attacking", total=None)

        def say(text: str) -> None:
            bar.update(task, description=escape(text))
            eta.line(escape(text))

        def on_round(done: int, total: int) -> None:
            bar.update(task, description="attacking", completed=done, total=total)

        with nullcontext() if quiet else listening(Answering(say)):
            return api.attack(
                recording, parts, app=app, allow=allow, device=device, on_round=on_round
            )


def _print_end(recording: Path) -> None:
    """Print what attacks took for granted of another app, and where to go on."""
    from fedsim import api
    from fedsim.federation.foreign import is_foreign
    from fedsim.run.run_folder import REPORT

    out.print()
    if is_foreign(recording):
        print_assumptions(api.Run(recording).config(), out)
        print_report(recording / REPORT)
    else:
        print_next(f"fedsim report {quoted(recording)}")


def _names(recording: Path, app: "App", text: str) -> list[str]:
    """Return the names of attacks in `text`.

    Raises:
        ConfigError: There are none; for a recording of another app the sentence asks for all else
            that is not given.
    """
    from fedsim.federation.foreign import asked, is_foreign, lacking

    names = [name.strip() for name in text.split(",") if name.strip()]
    if names:
        return names
    absent = lacking(recording, app) if not text and is_foreign(recording) else []
    if absent:
        raise ConfigError(asked([*absent, "--with NAME"]))
    raise ConfigError("--with: must name an attack, got none; see fedsim list attacks")


def _parts(recording: Path, names: list[str]) -> "list[Part]":
    """Return attacks by name, with the options that the recording's config gives them."""
    from fedsim import api
    from fedsim.config import Part

    configured: dict[str, Part] = {}
    if (recording / "config.toml").exists():
        configured = {part.name: part for part in api.Run(recording).config().attack}
    return [configured.get(name, Part(name=name)) for name in names]
