"""`fedsim attack`: a run of fedsim's own, or the tape of somebody else's Flower app."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.answering import Answering
from fedsim.cli.app_options import AppOptions
from fedsim.cli.assumptions import print_assumptions
from fedsim.cli.console import err, out, print_next, print_report, quoted
from fedsim.cli.eta import Eta
from fedsim.cli.grouped import with_options
from fedsim.cli.options import Allow, Json, Strict
from fedsim.cli.tables import print_attacks
from fedsim.cli.unanswered import print_unanswered
from fedsim.core.errors import ConfigError

if TYPE_CHECKING:
    from pyarrow import Table

    from fedsim.config import Part
    from fedsim.federation.foreign import App


@with_options(AppOptions)
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
    described: AppOptions,
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
    from fedsim.run import outcomes

    app = described.app()
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
    with Progress(console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
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
