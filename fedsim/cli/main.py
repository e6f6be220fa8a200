"""The command line. Nothing heavy is imported before a command needs it."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

from fedsim import __version__
from fedsim.cli import attack, audit, config, deploy, explain, game, listing, report, run, sweep
from fedsim.cli.console import err, out
from fedsim.core.errors import FedsimError

app = typer.Typer(
    help="A federated-learning simulator with a built-in adversary.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    run.run,
    attack.attack,
    report.report,
    sweep.sweep,
    game.game,
    explain.explain,
    audit.audit,
    config.config,
):
    app.command()(command)
app.add_typer(deploy.app, name="deploy")
app.command("list")(listing.list_)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(f"fedsim {__version__}")


def main() -> NoReturn:
    """Run the command line: one sentence and a non-zero exit code for every failure."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    sys.path.insert(0, str(Path.cwd()))  # for the user's own `module:function`
    try:
        code = app(standalone_mode=False) or 0
        if code == 130:  # typer's answer to Ctrl-C
            err.print("fedsim: stopped")
    except FedsimError as error:
        code = _fail(str(error), error.code)
    except KeyboardInterrupt:
        err.print("fedsim: stopped")
        code = 130
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        code = _fail(reason, 1)
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
    return _fail(error.format_message(), error.exit_code)


def _fail(sentence: str, code: int) -> int:
    err.print(f"fedsim: {sentence}", style="red", markup=False, soft_wrap=True)
    return code
