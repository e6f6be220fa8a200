"""How far an explanation is: a bar, or lines where there is no terminal, with the time left."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedsim.cli.eta import QUIET, Eta, duration

if TYPE_CHECKING:
    from rich.console import Console

SURE = 0.5  # seconds of work from which on their pace says how long the rest takes


class Looking:
    """The steps of each model's explanation.

    Args:
        console: Where they are shown.
        quiet: Show nothing.
        clock: Seconds.
    """

    def __init__(
        self, console: "Console", *, quiet: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console, self.quiet, self.clock = console, quiet, clock
        self.eta = Eta(1, console, clock)
        self.bar = self.eta.bar(quiet=quiet)
        self.task = self.bar.add_task("", total=None, left="")

    def __enter__(self) -> "Looking":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, name: str) -> None:
        """Begin the explanation of a model."""
        from rich.markup import escape

        self.name, self.expected = name, False
        self.bar.reset(self.task, total=None, description=escape(name), left="")

    def step(self, done: int, total: int) -> None:
        """Show that steps of one look at a model are done, from 0; say once how long it takes."""
        if self.quiet:
            return
        if not done:  # a look begins
            self.eta.begin(0)
            self.eta.touch()
            return
        share = done / total
        left = self.eta.left(share)
        self.bar.update(self.task, completed=done, total=total, left=left)
        taken = self.clock() - self.eta.begun
        if not self.expected and taken >= SURE:
            self.expected = True
            if taken / share >= QUIET:
                self.console.print(
                    f"{self.name}: about {duration(taken / share)}; --directions 0 leaves it out",
                    style="dim",
                    soft_wrap=True,
                )
                self.eta.touch()
        self.eta.line(f"{self.name}: {share:.0%} done{left and ', '}{left}")
