"""How long a run will still take, from its first client on."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

QUIET = 10.0  # seconds at least between two lines where there is no terminal


class Eta:
    """The time that is left, by the mean pace since the beginning.

    Args:
        total: Rounds to be done.
        console: Where lines go if it is no terminal.
        clock: Seconds.
    """

    def __init__(
        self, total: int, console: "Console", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.console, self.clock = total, console, clock
        self.begun = self.printed = clock()
        self.first: float | None = None

    def bar(self, *, quiet: bool) -> "Progress":
        """Return a bar with the time that is left behind it; it shows at a terminal alone."""
        from rich.progress import BarColumn, Progress, TextColumn

        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}")
        hidden = quiet or not self.console.is_terminal  # it would leave an empty line
        return Progress(*columns, console=self.console, transient=True, disable=hidden)

    def begin(self, done: float) -> None:
        """Count from here on: what was done before says nothing of the pace."""
        self.begun, self.first = self.clock(), done

    def left(self, done: float) -> str:
        """Return the time left as text, where `done` rounds are done, the last perhaps in part."""
        if self.first is None or done <= self.first:
            return ""
        seconds = (self.clock() - self.begun) * (self.total - done) / (done - self.first)
        return f"about {duration(seconds)} left"

    def line(self, text: str) -> None:
        """Print a line if there is no terminal, and none was printed for a while."""
        if not self.console.is_terminal and self.clock() >= self.printed + QUIET:
            self.console.print(text, soft_wrap=True)
            self.touch()

    def touch(self) -> None:
        """Take note that something was printed."""
        self.printed = self.clock()


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
