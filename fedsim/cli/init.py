"""`fedsim init`: a config with comments for a common question."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.console import out, print_line, print_next, typed
from fedsim.cli.options import Json
from fedsim.core.errors import ConfigError, nearest

FOLDER = Path(__file__).parent / "questions"
QUESTIONS = ("labels", "members", "reconstruct", "defense", "claim")
COMMANDS = {"claim": "audit"}  # the others are of `fedsim run`


def init(
    question: Annotated[
        str | None,
        typer.Argument(
            metavar="QUESTION",
            help="labels, members, reconstruct, defense or claim (lists them if omitted).",
        ),
    ] = None,
    *,
    out_: Annotated[
        Path | None, typer.Option("--out", help="New TOML file (QUESTION.toml if omitted).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a config with comments that answers a common question."""
    if question is None:
        _list_questions(as_json=as_json)
        if as_json or not asks():
            return
        question = typer.prompt("\nQuestion")
    if question not in QUESTIONS:
        hint = nearest(question, QUESTIONS)
        raise ConfigError(f"question: must be a known name, got '{question}'; {hint}")
    path = out_ or Path(f"{question}.toml")
    _write_new(path, text_of(question))
    command = f"fedsim {COMMANDS.get(question, 'run')} {shlex.quote(str(path))}"
    if as_json:
        out.print_json(data={"config": str(path), "next": typed(command)})
        return
    print_line("Config", path)
    print_next(command)


def asks() -> bool:
    """Return whether somebody is there to answer."""
    return sys.stdin.isatty() and out.is_terminal


def text_of(question: str) -> str:
    """Return the config that answers a question."""
    return (FOLDER / f"{question}.toml").read_text(encoding="utf-8")


def _asked(question: str) -> str:
    """Return the question in words: the first line of its config."""
    return text_of(question).partition("\n")[0].removeprefix("# ")


def _list_questions(*, as_json: bool) -> None:
    if as_json:
        out.print_json(data={name: _asked(name) for name in QUESTIONS})
        return
    for name in QUESTIONS:
        out.print(f"{name:<12} {_asked(name)}", soft_wrap=True)
    out.print()
    print_next(f"fedsim init {QUESTIONS[0]}")


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        ConfigError: There is something by this name, or no folder for it.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"--out: must be a new file, got {path}") from None
    except OSError as error:
        raise ConfigError(
            f"--out: must be a file that can be written, got {path} ({error.strerror})"
        ) from None
