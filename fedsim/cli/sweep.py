"""`fedsim sweep`: a run for every combination of settings; and what else makes several runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.console import Interrupted, err, out, print_report
from fedsim.cli.eta import Eta
from fedsim.cli.options import ConfigFile, Json, Over, Set, Workers
from fedsim.core.errors import ConfigError, RunStopped

if TYPE_CHECKING:
    from fedsim.config import Cell
    from fedsim.run.outcomes import Answers


def sweep(
    config: ConfigFile = None,
    *,
    over: Over = None,
    set_: Set = None,
    out_: Annotated[
        Path, typer.Option("--out", help="Folder of the runs; finished runs in it are kept.")
    ] = Path("runs/sweep"),
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Run every combination of settings, and compare leakage and accuracy."""
    if not over:
        raise ConfigError("--over: must name a setting and its values, got none")
    from fedsim import config as configs

    cells = configs.cells(config, set_ or (), [configs.parse_over(text) for text in over])
    again = "the same command continues the sweep"
    run_cells(cells, out_, again=again, workers=workers, as_json=as_json)


class _Progress:
    """A line for each run as it ends, and a bar below them.

    Args:
        cells: What is run.
        target: Folder of the runs.
        clients_seen: Whether each client's reply is seen, or ended runs alone.
        quiet: Print nothing.
    """

    def __init__(
        self, cells: "Sequence[Cell]", target: Path, *, clients_seen: bool, quiet: bool
    ) -> None:
        self.cells, self.target, self.quiet = cells, target, quiet
        self.rounds = [cell.config.federation.rounds for cell in cells]
        self.failed: dict[str, str] = {}
        self.done = 0
        self.eta = Eta(sum(self.rounds), err)
        if not clients_seen:
            self.eta.begin(0)
        self.bar = self.eta.bar(quiet=quiet)

    def __enter__(self) -> "_Progress":
        self.bar.__enter__()
        self.task = self.bar.add_task("", total=sum(self.rounds), left="")
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def replied(self, round_: int, count: int, sampled: int) -> None:
        """Show that a client of the current run has replied."""
        before = sum(self.rounds[: self.done]) + round_ - 1
        if self.eta.first is None:  # runs that were finished before say nothing of the pace
            self.eta.begin(before)
        rounds = before + count / sampled
        self._reached(rounds)
        if not self.quiet:
            name = self.cells[self.done].name
            self.eta.line(f"{name}  round {round_}, {self.eta.left(rounds)}")

    def ended(self, cell: "Cell", reason: str | None) -> None:
        """Show that a run has ended, or why it failed."""
        self.done += 1
        self._reached(sum(self.rounds[: self.done]))
        if reason is not None:
            self.failed[cell.name] = reason
        if not self.quiet:
            text = reason or _done(self.target / cell.name)
            out.print(f"{cell.name}  {text}", soft_wrap=True)

    def _reached(self, rounds: float) -> None:
        text = f"run {min(self.done + 1, len(self.cells))}/{len(self.cells)}"
        left = self.eta.left(rounds)
        self.bar.update(self.task, completed=rounds, description=text, left=left)


def run_cells(
    cells: "Sequence[Cell]",
    target: Path,
    *,
    again: str,
    workers: int | None = None,
    as_json: bool = False,
) -> "dict[Path, list[Answers]]":
    """Run cells with a line for each, report on those that finished, and return their answers.

    Args:
        cells: From `fedsim.config`.
        target: Folder of the runs.
        again: How to go on after Ctrl-C.
        workers: Runs at a time, on Ray; one by one in this process if omitted.
        as_json: Print one JSON object instead.

    Raises:
        RunStopped: A run failed.
    """
    from fedsim import api, sweeps
    from fedsim.config import Engine
    from fedsim.run import outcomes

    engine = None if workers is None else Engine(name="ray", workers=workers)
    progress = _Progress(cells, target, clients_seen=engine is None, quiet=as_json)
    try:
        with progress:
            paths = sweeps.sweep(
                cells, target, engine=engine, on_cell=progress.ended, on_client=progress.replied
            )
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {again}") from None
    failed = progress.failed
    report = api.report(paths, target / "report.html") if paths else None
    answers = {path: _answers(path) for path in paths}
    if as_json:
        data = {"runs": [str(path) for path in paths], "failed": failed}
        unanswered = {str(path): outcomes.as_json(of) for path, of in answers.items()}
        out.print_json(data={**data, "report": report and str(report), "unanswered": unanswered})
    elif report:
        out.print()
        print_report(report)
    if failed:
        name, reason = next(iter(failed.items()))
        raise RunStopped(f"{len(failed)} of {len(cells)} runs failed; {name}: {reason}")
    return answers


def _answers(path: Path) -> "list[Answers]":
    from fedsim import api

    return api.answers(api.Run(path).ledger())


def _done(path: Path) -> str:
    """Return what came of a run, and what its attacks did not answer."""
    from fedsim.run.glance import glance, line_of
    from fedsim.run.outcomes import unanswered

    missing = (f"{it.title} {it.counts}" for it in unanswered(_answers(path)))
    return "; ".join([line_of(glance(path)), *missing])
