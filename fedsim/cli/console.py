"""Where commands print: results to standard output, progress and errors to standard error."""

from pathlib import Path
from typing import Any

from rich.console import Console

from fedsim.core.errors import RunStopped

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Interrupted(RunStopped):
    """The user's Ctrl-C."""

    code = 130


def say(text: str, *, quiet: bool, **options: Any) -> None:
    """Print something that only a person at a terminal wants to see."""
    if not quiet and out.is_terminal:
        out.print(text, **options)


def print_line(head: str, text: object) -> None:
    """Print a named line, such as `Report   runs/a/report.html`, without breaking it."""
    out.print(f"{head:<8} {text}", markup=False, soft_wrap=True)


def print_report(report: Path) -> None:
    """Print where a report is, and how to see it."""
    print_line("Report", report)
    print_line("Next", f"open {report} in a browser")
