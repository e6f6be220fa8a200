"""The command line. Nothing heavy is imported before a command needs it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from fedsim import __version__
from fedsim.cli import attack as cli_attack
from fedsim.cli import audit as cli_audit
from fedsim.cli import config as cli_config
from fedsim.cli import deploy as cli_deploy
from fedsim.cli import explain as cli_explain
from fedsim.cli.tables import Rounds, audit_line
from fedsim.core.errors import ConfigError, FedsimError, RunStopped, nearest

app = typer.Typer(
    help="A federated-learning simulator with a built-in adversary.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
KINDS = ("attacks", "datasets", "defenses", "engines", "games", "models", "strategies")


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="TOML file; defaults without.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="New run folder.")] = None,
    engine: Annotated[str | None, typer.Option(help="inline or ray.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    as_json: Json = False,
) -> None:
    """Train a federation, attack it every round, and plot what leaked."""
    if resume and (config or set_ or engine):
        raise ConfigError("--resume: goes on with the run's own config, got a config or settings")
    settings = [*(set_ or []), *([f"engine.name={engine}"] if engine else [])]
    _say(as_json, "Loading …", end="\r")
    from fedsim import api
    from fedsim import config as configs

    if resume:
        target = out_ or api.newest_unfinished()
        asked = api.Run(target).config()
    else:
        asked = configs.read(config, settings)
        target = out_ or api.new_folder(asked)
    with Rounds(asked, target, out, quiet=as_json) as progress:
        go: Callable[..., Any] = (
            api.resume if resume else lambda path, **k: api.run(asked, path, **k)
        )
        try:
            done = go(target, on_round=progress.show, on_plan=progress.warn)
        except KeyboardInterrupt:
            begun = (target / "config.toml").exists()
            where = f"stopped; {_resume_hint(target)}" if begun else "stopped"
            raise _Interrupted(where) from None
        except FedsimError as error:
            if not progress.started or isinstance(error, ConfigError):
                raise
            raise type(error)(f"{error}\n{_resume_hint(target)}") from None
    if as_json:
        out.print_json(data=_summary(done))
        return
    if line := audit_line(api.last_audit(done.ledger())):
        out.print(f"\nAudit    {line}", soft_wrap=True)
    out.print(f"\nReport   {done.report}", soft_wrap=True)
    out.print(f"Next     fedsim attack {target} --with llg     or open the report", soft_wrap=True)


app.command()(cli_attack.attack)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="One run folder, or several to compare.")],
    out_: Annotated[
        Path | None, typer.Option("--out", help="HTML file; report.html in the first run without.")
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Whose label counts to draw; the most exposed without."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a run, or compare several, into one HTML file."""
    from fedsim import api

    if len(runs) > 1 and out_ is None:
        out_ = Path("comparison.html")  # one run's own report is not overwritten
    path = api.report(runs, out_, client=client)
    if as_json:
        out.print_json(data={"report": str(path)})
        return
    out.print(f"Report   {path}", soft_wrap=True)
    out.print(f"Next     open {path} in a browser", soft_wrap=True)


@app.command()
def sweep(
    config: Annotated[Path | None, typer.Argument(help="TOML file; defaults without.")] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V,V,…", help="Values of one setting; again for a grid."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    out_: Annotated[
        Path, typer.Option("--out", help="Folder of the runs; what is there already goes on.")
    ] = Path("runs/sweep"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time, on Ray; one by one without.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run every combination of settings, and compare leakage and accuracy."""
    from rich.progress import Progress

    from fedsim import api, sweeps
    from fedsim import config as configs
    from fedsim.config import Engine

    if not over:
        raise ConfigError("--over: must name a setting and its values, got none")
    todo = configs.cells(config, set_ or (), [configs.parse_over(text) for text in over])
    engine = None if workers is None else Engine(name="ray", workers=workers)
    failed: dict[str, str] = {}
    with Progress(console=err, transient=True, disable=as_json) as bar:
        task = bar.add_task("sweeping", total=len(todo))

        def told(cell: configs.Cell, reason: str | None) -> None:
            bar.advance(task)
            if reason is not None:
                failed[cell.name] = reason
            if not as_json:
                out.print(f"{cell.name}  {reason or 'done'}", markup=False, soft_wrap=True)

        try:
            paths = sweeps.sweep(todo, out_, engine=engine, on_cell=told)
        except KeyboardInterrupt:
            raise _Interrupted("stopped; the same command goes on") from None
    report = api.report(paths, out_ / "report.html") if paths else None
    if as_json:
        runs = [str(path) for path in paths]
        out.print_json(data={"runs": runs, "failed": failed, "report": report and str(report)})
    elif report:
        out.print(f"\nReport   {report}", soft_wrap=True)
        out.print(f"Next     open {report} in a browser", soft_wrap=True)
    if failed:
        name, reason = next(iter(failed.items()))
        raise RunStopped(f"{len(failed)} of {len(todo)} runs failed; {name}: {reason}")


@app.command()
def game(
    config: Annotated[Path | None, typer.Argument(help="TOML file with [game].")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V,V,…", help="Values of one setting; again for a grid."),
    ] = None,
    out_: Annotated[
        Path, typer.Option("--out", help="Folder of table and report; what is there is kept.")
    ] = Path("runs/game"),
    as_json: Json = False,
) -> None:
    """Play inference games: many independent trials against one model."""
    from fedsim import config as configs
    from fedsim.cli.tables import GAME_HEADER, game_line
    from fedsim.games import table as games
    from fedsim.report.games import wide, write_games_report

    _say(as_json, "Loading …", end="\r")
    todo = configs.cells(config, set_ or (), [configs.parse_over(text) for text in over or ()])
    if not as_json:
        out.print(GAME_HEADER, style="bold", soft_wrap=True)

    def told(rows: Any) -> None:
        if not as_json:
            for line in wide([vars(row) for row in rows]):
                out.print(game_line(line, several=len(todo) > 1), markup=False, soft_wrap=True)

    try:
        table = games.games(todo, out_, on_rows=told)
    except KeyboardInterrupt:
        raise _Interrupted("stopped; the same command goes on") from None
    rows = table.to_pylist()
    report = out_ / games.REPORT
    write_games_report(rows, report, configs=(out_ / games.CONFIGS).read_text())
    if as_json:
        out.print_json(
            data={"games": rows, "table": str(out_ / games.TABLE), "report": str(report)}
        )
        return
    out.print(f"\nTable    {out_ / games.TABLE}", soft_wrap=True)
    out.print(f"Report   {report}", soft_wrap=True)
    out.print(f"Next     open {report} in a browser", soft_wrap=True)


app.command()(cli_explain.explain)
app.command()(cli_audit.audit)
app.command()(cli_config.config)
app.add_typer(cli_deploy.app, name="deploy")


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help=" | ".join(KINDS))],
    as_json: Json = False,
) -> None:
    """Show what there is, one line each."""
    from rich.table import Table

    if kind not in KINDS:
        raise ConfigError(f"list: must be a kind, got '{kind}'; {nearest(kind, KINDS)}")
    from fedsim.cli import listing as parts

    lines = parts.describe(kind)
    if as_json:
        out.print_json(data=lines)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, line in lines.items():
        table.add_row(name, line)
    out.print(table)
    out.print(f"\nNext     {parts.NEXT[kind]}")


@app.command()
def version() -> None:
    """Print the version."""
    out.print(f"fedsim {__version__}")


class _Interrupted(FedsimError):
    code = 130


def main() -> NoReturn:
    """Run the command line: one sentence and a non-zero exit code for every failure."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    sys.path.insert(0, str(Path.cwd()))  # for the user's own `module:function`
    try:
        code = app(standalone_mode=False) or 0
        if code == 130:  # typer's answer to Ctrl-C
            err.print("fedsim: stopped")
    except FedsimError as error:
        err.print(f"fedsim: {error}", style="red", markup=False, soft_wrap=True)
        code = error.code
    except KeyboardInterrupt:
        err.print("fedsim: stopped")
        code = 130
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        err.print(f"fedsim: {reason}", style="red", markup=False, soft_wrap=True)
        code = 1
    except Exception as error:
        code = _usage(error)
    sys.exit(code)


def _usage(error: Exception) -> int:
    """Print a usage error as one sentence; anything else is a bug and keeps its traceback."""
    import click

    if isinstance(error, click.Abort):
        return 130
    if not isinstance(error, click.ClickException):
        raise error
    err.print(f"fedsim: {error.format_message()}", style="red", markup=False, soft_wrap=True)
    return error.exit_code


def _say(quiet: bool, text: str, **options: Any) -> None:
    if not quiet and out.is_terminal:
        out.print(text, **options)


def _resume_hint(target: Path) -> str:
    return f"go on with: fedsim run --resume --out {target}"


def _summary(done: Any) -> dict[str, Any]:
    from fedsim import api

    accuracy = [row for row in done.metrics().to_pylist() if row["metric"] == "accuracy"]
    return {
        "run": str(done.path),
        "report": str(done.report),
        "accuracy": accuracy[-1]["value"] if accuracy else None,
        "attacks": api.means(done.ledger()),
        "audit": api.last_audit(done.ledger()),
    }
