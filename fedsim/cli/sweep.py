"""`fedsim sweep`: a run for every combination of settings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.console import Interrupted, err, out, print_report
from fedsim.cli.options import ConfigFile, Json, Over, Set, Workers
from fedsim.core.errors import ConfigError, RunStopped

if TYPE_CHECKING:
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
    from rich.progress import Progress

    from fedsim import api, sweeps
    from fedsim.config import Engine
    from fedsim.run import outcomes

    engine = None if workers is None else Engine(name="ray", workers=workers)
    failed: dict[str, str] = {}
    with Progress(console=err, transient=True, disable=as_json) as bar:
        task = bar.add_task("sweeping", total=len(cells))

        def show(cell: configs.Cell, reason: str | None) -> None:
            bar.advance(task)
            if reason is not None:
                failed[cell.name] = reason
            if not as_json:
                text = reason or _done(out_ / cell.name)
                out.print(f"{cell.name}  {text}", soft_wrap=True)

        try:
            paths = sweeps.sweep(cells, out_, engine=engine, on_cell=show)
        except KeyboardInterrupt:
            raise Interrupted("stopped; the same command continues the sweep") from None
    report = api.report(paths, out_ / "report.html") if paths else None
    if as_json:
        runs = [str(path) for path in paths]
        data = {"runs": runs, "failed": failed, "report": report and str(report)}
        unanswered = {str(path): outcomes.as_json(_answers(path)) for path in paths}
        out.print_json(data={**data, "unanswered": unanswered})
    elif report:
        out.print()
        print_report(report)
    if failed:
        name, reason = next(iter(failed.items()))
        raise RunStopped(f"{len(failed)} of {len(cells)} runs failed; {name}: {reason}")


def _answers(path: Path) -> "list[Answers]":
    from fedsim import api

    return api.answers(api.Run(path).ledger())


def _done(path: Path) -> str:
    """Return that a run is done, and what its attacks did not answer."""
    from fedsim.run.outcomes import unanswered

    return "; ".join(["done", *(f"{it.title} {it.counts}" for it in unanswered(_answers(path)))])
