"""Where commands print: results to standard output, progress and errors to standard error."""

import os
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap

from rich.console import Console, ConsoleOptions, RenderableType
from rich.control import Control
from rich.segment import ControlType, Segment

from fedsim.core.errors import RunStopped

# Control characters but newline and tab; separators of lines; what turns the direction of text.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


OPENERS = {"darwin": "open", "win32": "start"}  # what shows a file; elsewhere xdg-open
OF_TEXTS = ("token-rows", "tokens-moved", "positions")
OF_ADAPTERS = ("loss-drop", "cosine-mia")  # where no token table need travel, as under LoRA
FURTHER = ("eb-gls-rounds", "llg-plus", "rlu")  # attacks on any upload, the strongest first


class _Plain(Console):
    r"""A console on which text does not steer the terminal: an escape is shown as `\u001b`.

    Names of files, clients and attacks in a recording come from whoever made it.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not STEERING.search(segment.text):
                yield segment
            else:
                text = STEERING.sub(lambda it: f"\\u{ord(it[0]):04x}", segment.text)
                yield Segment(text, segment.style)


out = _Plain(highlight=False, markup=False, emoji=False)
err = _Plain(stderr=True, highlight=False, markup=False, emoji=False)


class Interrupted(RunStopped):
    """The user's Ctrl-C."""

    code = 130


def say(text: str, *, quiet: bool) -> None:
    """Print what only a person at a terminal wants to see, until the next line."""
    if not quiet and out.is_terminal:
        out.print(text, end="")
        out.control(Control(ControlType.CARRIAGE_RETURN))


def print_line(head: str, text: object, style: str | None = None) -> None:
    """Print a named line, such as `Report   runs/a/report.html`, without breaking it."""
    out.print(f"{head:<8} {text}", style=style, soft_wrap=True)


def print_hanging(console: Console, indent: str, text: str, style: str | None = None) -> None:
    """Print a sentence whose further lines begin where its first word does."""
    hanging = wrap(
        text,
        console.width,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
    console.print("\n".join(hanging), style=style, markup=False, soft_wrap=True)


def print_next(command: str) -> None:
    """Print the command that goes on, as the user's shell finds it."""
    print_line("Next", typed(command))


def typed(command: str) -> str:
    """Return a command of fedsim with `uv run` before it if this one was started so.

    Outside `uv run` the shell has no `fedsim`, unless an environment is active.
    """
    under_uv = "UV_RUN_RECURSION_DEPTH" in os.environ  # `uv run` sets it
    return f"uv run {command}" if under_uv and command.startswith("fedsim ") else command


def print_report(report: Path) -> None:
    """Print where a report is, and how to see it."""
    print_line("Report", report)
    print_next(f"{OPENERS.get(sys.platform, 'xdg-open')} {quoted(report)}")


def quoted(path: object) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(path))


def attack_line(run: Path, attacks: Iterable[str]) -> str:
    """Return the command that goes on with a run: an attack that it does not have yet."""
    had = set(attacks)
    further = FURTHER
    if any(_only_texts(name) for name in had):
        further = OF_TEXTS if had & set(OF_TEXTS) else OF_ADAPTERS
    other = next((name for name in further if name not in had), None)
    return f"fedsim attack {quoted(run)} --with {other}" if other else f"fedsim view {quoted(run)}"


def _only_texts(attack: str) -> bool:
    """Whether an attack works on models of texts alone."""
    from adversary.attacks import ATTACKS
    from adversary.grading.selection import kinds_of

    return attack in ATTACKS and "values" not in kinds_of(ATTACKS[attack])
