"""`fedsim attack`: a run of fedsim's own, or the tape of somebody else's Flower app."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedsim.cli.explain import parse_shape
from fedsim.cli.tables import print_attacks
from fedsim.core.errors import ConfigError

PANEL = "Of another app's recording (told once; kept in its config.toml)"

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def _told(flag: str, text: str, **options: Any) -> Any:
    """Return an option that tells something of another app."""
    return typer.Option(flag, help=text, rich_help_panel=PANEL, **options)


def attack(  # noqa: PLR0917 typer's way to say an option
    recording: Annotated[
        Path, typer.Argument(help="A run folder, or a tape of strategies.Recording.")
    ],
    with_: Annotated[str, typer.Option("--with", metavar="NAME[,NAME]", help="Attacks to run.")],
    model: Annotated[
        str | None, _told("--model", "The architecture.", metavar="MODULE:NAME")
    ] = None,
    num_classes: Annotated[int | None, _told("--num-classes", "How many labels.")] = None,
    local_lr: Annotated[float | None, _told("--local-lr", "Of the clients' SGD.")] = None,
    local_batch_size: Annotated[int | None, _told("--local-batch-size", "Of the clients.")] = None,
    local_epochs: Annotated[
        int | None, _told("--local-epochs", "Of the clients, per round; 1 without.")
    ] = None,
    local_momentum: Annotated[
        float | None, _told("--local-momentum", "Of the clients' SGD; 0 without.")
    ] = None,
    local_label_smoothing: Annotated[
        float | None, _told("--local-label-smoothing", "Of the clients' loss; 0 without.")
    ] = None,
    input_shape: Annotated[
        str | None,
        _told("--input-shape", "Of one example; found where one size fits.", metavar="CxHxW"),
    ] = None,
    auxiliary: Annotated[
        str | None,
        _told(
            "--auxiliary",
            "The adversary's own examples: a data set or MODULE:FUNCTION.",
            metavar="NAME",
        ),
    ] = None,
    auxiliary_root: Annotated[
        str | None, _told("--auxiliary-root", "Its folder.", metavar="DIR")
    ] = None,
    auxiliary_limit: Annotated[int | None, _told("--auxiliary-limit", "How many of them.")] = None,
    truth: Annotated[
        str | None,
        _told("--truth", "What clients kept (mods.keep_truth), to grade by.", metavar="DIR"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of text.")
    ] = False,
) -> None:
    """Attack a recording without training."""
    from rich.progress import Progress

    from fedsim import api
    from fedsim.config import Part
    from fedsim.federation.foreign_app import App, is_foreign
    from fedsim.run.run_folder import REPORT

    names = [name.strip() for name in with_.split(",") if name.strip()]
    if not names:
        raise ConfigError("--with: must name an attack, got none; see fedsim list attacks")
    own = {}  # with their options
    if (recording / "config.toml").exists():
        own = {part.name: part for part in api.Run(recording).config().attack}
    parts = [own.get(name, Part(name=name)) for name in names]
    app = App(
        model=model,
        num_classes=num_classes,
        lr=local_lr,
        batch_size=local_batch_size,
        epochs=local_epochs,
        momentum=local_momentum,
        label_smoothing=local_label_smoothing,
        input_shape=None if input_shape is None else parse_shape(input_shape, "--input-shape"),
        auxiliary=auxiliary,
        auxiliary_root=auxiliary_root,
        auxiliary_limit=auxiliary_limit,
        truth=truth,
    )
    with Progress(console=err, transient=True, disable=as_json) as bar:
        task = bar.add_task("attacking", total=None)
        rows = api.attack(
            recording, parts, app=app,
            on_round=lambda n, total: bar.update(task, completed=n, total=total),
        )  # fmt: skip
    means = api.means(rows)
    if as_json:
        out.print_json(data={"run": str(recording), "rows": rows.num_rows, "attacks": means})
        return
    print_attacks(means, out)
    if is_foreign(recording):
        out.print(f"\nReport   {recording / REPORT}", soft_wrap=True)
        out.print(f"Next     open {recording / REPORT} in a browser", soft_wrap=True)
        return
    out.print(f"\nNext     fedsim report {recording}", soft_wrap=True)
