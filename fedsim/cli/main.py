"""The command line. Nothing heavy is imported before a command needs it."""

import codecs
import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fedsim import __version__
from fedsim.cli import (
    attack,
    audit,
    check,
    config,
    conformance,
    deploy,
    evidence,
    explain,
    export,
    game,
    hints,
    init,
    listing,
    report,
    run,
    runs,
    sweep,
    view,
    watch,
)
from fedsim.cli.commands import Command
from fedsim.cli.console import err, out
from fedsim.core.boundary import raised
from fedsim.core.catalog import search_in
from fedsim.core.errors import ConfigError, FedsimError, one_line
from fedsim.core.packages import shadowed

DEBUG = "--debug"
UNMAPPED = "failed to map segment"  # what the loader of libraries says under a limit of memory

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    init.init,
    run.run,
    attack.attack,
    watch.watch,
    report.report,
    runs.runs,
    view.view,
    export.export,
    sweep.sweep,
    game.game,
    explain.explain,
    audit.audit,
    check.check,
    evidence.evidence,
    conformance.conformance,
    config.config,
):
    app.command(cls=Command)(command)
app.add_typer(deploy.app, name="deploy")
app.command("list", cls=Command)(listing.list_)


@app.command(cls=Command)
def version() -> None:
    """Print the version."""
    out.print(f"fedsim {__version__}")


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    *,
    version_: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of a failure; stands anywhere.")
    ] = False,
) -> None:
    """A federated-learning simulator with a built-in adversary."""


def main() -> NoReturn:
    """Run the command line: one sentence and a non-zero exit code for every failure."""
    debug = DEBUG in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != DEBUG]
    try:
        _prepare()
        code = app(standalone_mode=False) or 0
        if code == 130:  # typer's answer to Ctrl-C
            err.print("fedsim: stopped")
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            text = "".join(traceback.format_exception(error))
            err.print(text, soft_wrap=True)
        try:
            code = _ended(error)
        except MemoryError:  # not enough for the printer itself
            os.write(2, b"fedsim: memory: must suffice, got too little\n")
            code = 1
    sys.exit(code)


def _prepare() -> None:
    """Make ready for any terminal, folder and locale.

    Raises:
        ConfigError: An argument is not text, or the working directory is deleted or hides fedsim's
            packages.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    codecs.register_error("fedsim", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="fedsim")
    for argument in sys.argv[1:]:
        if not argument.isascii() and argument.encode("utf-8", "replace").decode() != argument:
            raise ConfigError(f"an argument: must be UTF-8, got {argument!r}")
    try:
        search_in(Path.cwd())
    except FileNotFoundError:
        raise ConfigError("the working directory: must exist, got a deleted one") from None
    if sentence := shadowed():
        raise ConfigError(sentence)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""Write what a terminal cannot show as `\\u2026`, which is right in JSON, too."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    units = [text[k : k + 2].hex() for k in range(0, len(text), 2)]
    return "".join(f"\\u{unit}" for unit in units), error.end


def _ended(error: BaseException) -> int:
    """Print why the command ended, as one sentence; return its exit code."""
    import click

    if isinstance(error, click.Abort):
        return 130
    if isinstance(error, KeyboardInterrupt):
        err.print("fedsim: stopped")
        return 130
    if isinstance(error, FedsimError):
        return _fail(str(error), error.code)
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # of click 8.2
        out.print(str(error), soft_wrap=True)
        return 0
    if isinstance(error, click.ClickException):
        return _fail(hints.sentence(error), error.exit_code)
    if isinstance(error, OSError):
        reason = f"{error.strerror}: {error.filename}" if error.filename else one_line(error)
        return _fail(reason, 1)
    if isinstance(error, MemoryError) or UNMAPPED in str(error):
        return _fail(f"memory: must suffice, got {raised(error, ours=True)}", 1)
    return _fail(f"a fault of fedsim: {raised(error, ours=True)}; {DEBUG} shows the traceback", 1)


def _fail(sentence: str, code: int) -> int:
    err.print(f"fedsim: {sentence}", style="red", soft_wrap=True)
    return code
