"""What `fedsim run` prints: a line per round as it ends, and a bar below them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.cli.columns import Columns
from fedsim.cli.console import print_hanging
from fedsim.cli.eta import Eta
from fedsim.cli.expectations import expectations
from fedsim.cli.unanswered import Unanswered
from fedsim.core.units import written

if TYPE_CHECKING:
    from rich.console import Console

ACCURACY, PERPLEXITY = "round  accuracy", "round  perplexity"


class Rounds:
    """A line per round as it ends, never wider than the terminal, and a bar below them.

    Args:
        config: What runs.
        target: Where to.
        console: Where it is printed.
        quiet: Print nothing.
    """

    def __init__(self, config: Any, target: Path, console: "Console", *, quiet: bool) -> None:
        self.config, self.target, self.console, self.quiet = config, target, console, quiet
        self.head = ACCURACY
        self.columns = self._columns([part.name for part in config.attack], records=False)
        self.eta = Eta(config.federation.rounds, console)
        self.bar = self.eta.bar(quiet=quiet)
        self.started = self.titled = False
        self.unanswered = Unanswered()
        self.alone: tuple[Mapping[str, int], Mapping[str, int]] = ({}, {})

    def __enter__(self) -> "Rounds":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def warn(self, plan: Any) -> None:
        """Say before a long run what became of a user's data, and what to expect of attacks."""
        self.head = ACCURACY if plan.federated.dataset.targets is None else PERPLEXITY
        titles = [attack.name for attack in plan.attacks if not attack.adaptive]
        self.columns = self._columns(titles, records=plan.auxiliary.schema is not None)
        if not self.quiet:
            self._entitle()
            for sentence in expectations(plan):
                self.console.print(sentence, style="yellow", markup=False)

    def show(self, done: Any) -> None:
        """Print one finished round."""
        if self.quiet:
            self.started = True
            return
        if not self.started:
            self._start()
        self._reached(done.number, done.number)
        self.eta.touch()
        cells = self.columns.cells(done.leakage, {each.title: each for each in done.answers})
        utility = f"{self._utility(done):>{len(self.head) - 5}}"
        self.bar.console.print(f"{done.number:>5}{utility}{cells}{done.seconds:>10.2f}")
        self._below(f"client {client} failed: {reason}" for client, reason in done.failures[:3])
        if len(done.failures) > 3:
            self._below([f"and {len(done.failures) - 3} more"])
        self._below(self.unanswered.lines(done.answers))
        if (alone := (done.alone, done.rehearsed_alone)) != self.alone:
            self.alone = alone
            self._below(
                f"{count} {which} trained one by one: {reason}"
                for which, counts in zip(("clients", "rehearsed clients"), alone, strict=True)
                for reason, count in counts.items()
            )

    def client(self, round_: int, count: int, sampled: int) -> None:
        """Show that a client of a round has replied, and how long the run will still take."""
        if self.quiet:
            return
        if not self.started:
            self._start()
        if self.eta.first is None:
            self.eta.begin(round_ - 1)
        left = self._reached(round_, round_ - 1 + count / sampled)
        self.eta.line(f"       round {round_}: {count} of {sampled} clients{left and ', '}{left}")

    def step(self, text: str) -> None:
        """Show where the attack is that works on a long answer."""
        from rich.markup import escape

        if self.quiet or not self.started:
            return
        self.bar.update(self.task, left=escape(text))
        self.eta.line(f"       {escape(text)}")

    def _columns(self, attacks: list[str], *, records: bool) -> Columns:
        return Columns.that_fit(attacks, self.console.width, records=records, first=self.head)

    def _utility(self, done: Any) -> str:
        """Return the model's accuracy, or its perplexity where it predicts tokens."""
        if self.head is ACCURACY:
            return written("", done.accuracy)
        return "–" if done.perplexity is None else f"{done.perplexity:.4g}"

    def _reached(self, round_: int, done: float) -> str:
        """Move the bar; return the time that is left."""
        left, total = self.eta.left(done), self.config.federation.rounds
        text = f"round {round_}/{total}"
        self.bar.update(self.task, completed=done, description=text, left=left)
        return left

    def _below(self, texts: Iterable[str]) -> None:
        """Print what a reader must know of the line above."""
        for text in texts:
            print_hanging(self.bar.console, " " * 7, text, "yellow")

    def _entitle(self) -> None:
        """Print what is run and where to, once, before anything else."""
        if self.titled:
            return
        self.titled = True
        federation, data = self.config.federation, self.config.data
        clients, rounds = federation.clients, federation.rounds
        self.console.print(
            f"{data.name} · {self.config.model.name} · {federation.strategy} · "
            f"{clients} client{'s' * (clients > 1)} · {rounds} round{'s' * (rounds > 1)} "
            f"→ {self.target}",
            soft_wrap=True,
        )

    def _start(self) -> None:
        """Print the head of the table, once there is something to put under it."""
        self.started = True
        self._entitle()
        self.console.print()
        self.console.print(self.columns.heads(), style="bold")
        self.task = self.bar.add_task("", total=self.config.federation.rounds, left="")
        self.bar.start()
