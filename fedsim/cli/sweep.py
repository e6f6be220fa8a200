"""`fedsim sweep`: a run for every combination of settings; and what else makes several runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    failed: dict[str, str] = {}
    rounds = [cell.config.federation.rounds for cell in cells]
    eta = Eta(sum(rounds), err)
    if engine is not None:  # there are no clients to be seen
        eta.begin(0)
    with eta.bar(quiet=as_json) as bar:
        task, done = bar.add_task("", total=sum(rounds), left=""), 0

        def reached(rounds_done: float) -> None:
            text = f"run {min(done + 1, len(cells))}/{len(cells)}"
            bar.update(task, completed=rounds_done, description=text, left=eta.left(rounds_done))

        def client(round_: int, count: int, asked: int) -> None:
            if eta.first is None:  # runs that were finished before say nothing of the pace
                eta.begin(sum(rounds[:done]) + round_ - 1)
            rounds_done = sum(rounds[:done]) + round_ - 1 + count / asked
            reached(rounds_done)
            if not as_json:
                eta.line(f"{cells[done].name}  round {round_}, {eta.left(rounds_done)}")

        def show(cell: "Cell", reason: str | None) -> None:
            nonlocal done
            done += 1
            reached(sum(rounds[:done]))
            if reason is not None:
                failed[cell.name] = reason
            if not as_json:
                text = reason or _done(target / cell.name)
                out.print(f"{cell.name}  {text}", soft_wrap=True)

        try:
            paths = sweeps.sweep(cells, target, engine=engine, on_cell=show, on_client=client)
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; {again}") from None
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
