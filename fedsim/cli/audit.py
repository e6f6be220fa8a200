"""`fedsim audit`: how private a mechanism is at most, beside what it claims."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fedsim.core.errors import ClaimRefuted, ConfigError, RunStopped

if TYPE_CHECKING:
    from fedsim.audit.recorded import Recorded
    from fedsim.audit.table import Row, Told

HEADS = ("canary", "Δ/C", "exact ε", "μ-GDP", "CP, any threshold", "CP", "Bayes", "CP could show")
METHODS = ("mu-gdp", "clopper-pearson-bonferroni", "clopper-pearson", "bayes")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def audit(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN|CONFIG", help="A run folder, or a TOML file; defaults without."
        ),
    ] = None,
    *,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V,V,…", help="Values of one setting; again for a grid."),
    ] = None,
    out_: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder, kept and gone on with; runs/audit or RUN/audit without."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, on Ray; this one without.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of text.")
    ] = False,
) -> None:
    """Audit a mechanism with canaries; exits with 3 where its claim is refuted."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from fedsim import config as configs
    from fedsim.audit import table as audits
    from fedsim.audit.recorded import recorded
    from fedsim.config import Engine
    from fedsim.report.audits import write_audit_report

    run = target if target is not None and target.is_dir() else None
    if run is not None and not (run / "config.toml").exists():
        raise ConfigError(f"{run}: must be a run folder or a TOML file, got no config.toml in it")
    config = target if run is None else run / "config.toml"
    folder = out_ or (Path("runs/audit") if run is None else run / "audit")
    todo = configs.cells(config, set_ or (), [configs.parse_over(text) for text in over or ()])
    engine = None if workers is None else Engine(name="ray", workers=workers)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    in_run = None if run is None else recorded(run)
    if in_run is not None and not as_json:
        out.print(recorded_line(in_run), markup=False, soft_wrap=True)
    with Progress(*columns, console=err, transient=True, disable=as_json) as bar:
        task = bar.add_task("auditing", total=None)

        def told(one: "Told") -> None:
            if not as_json:
                bar.console.print("")
                print_told(one, out, several=len(todo) > 1)

        try:
            found = audits.audits(
                todo, folder, run=run, engine=engine, on_told=told,
                on_runs=lambda name, done, total: bar.update(
                    task, description=name, completed=done, total=total
                ),
            )  # fmt: skip
        except KeyboardInterrupt:
            raise Stopped("stopped; the same command goes on") from None
    report = folder / audits.REPORT
    write_audit_report(found, report, configs=(folder / audits.CONFIGS).read_text())
    if as_json:
        data = summary(found, folder / audits.TABLE, report)
        out.print_json(data=data | {"recorded": None if in_run is None else vars(in_run)})
    else:
        out.print(f"\nTable    {folder / audits.TABLE}", soft_wrap=True)
        out.print(f"Report   {report}", soft_wrap=True)
        out.print(f"Next     open {report} in a browser", soft_wrap=True)
    said = [in_run.verdict if in_run else None, *(one.verdict for one in found)]
    if sentences := [sentence for sentence in said if sentence]:
        raise ClaimRefuted("; ".join(sentences))


def recorded_line(in_run: "Recorded") -> str:
    """Return what the canaries in a run show of it."""
    shown = ", ".join(f"{name} ≥ {value:.3g}" for name, value in in_run.bounds.items())
    return (
        f"In the run, until round {in_run.round}: {shown} (bounds, {100 * in_run.confidence:g} % "
        f"each), where theory claims {in_run.theory:.3g}.\n"
    )


class Stopped(RunStopped):
    """The user's Ctrl-C."""

    code = 130


def print_told(one: "Told", console: Console, *, several: bool) -> None:
    """Print one setting: its claim, a line per canary, and what its defenses are."""
    from rich.table import Table

    if several:
        console.print(one.setting, style="bold", markup=False, soft_wrap=True)
    console.print(one.claimed, markup=False, soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False)
    for place, head in enumerate(_heads(one)):
        table.add_column(head, justify="left" if place == 0 else "right")
    for cells in lines(one):
        table.add_row(*cells)
    console.print(table)
    first = one.rows[0]
    console.print(
        f"\nBounds hold at {100 * (first.confidence or 0):g} % each, at δ = {first.delta:g}; "
        "μ-GDP assumes a Gaussian mechanism,\nCP (Clopper–Pearson) nothing. Bayes is credible, no "
        "bound.\n!: refutes the claim, at a level at which all hold together; max: no run erred.",
        style="dim", soft_wrap=True,
    )  # fmt: skip
    if one.claim.mu is not None and first.exact is None:
        console.print("Exact ε: only of a single local step per round.", style="dim")
    if one.blunt:
        console.print(f"{one.blunt}.", style="yellow", markup=False, soft_wrap=True)
    for check in one.checks:
        style = "dim" if check.holds else "red"
        console.print(f"{check.link}: {check.said}", style=style, markup=False, soft_wrap=True)


def lines(one: "Told") -> list[list[str]]:
    """Return the cells of a line per canary."""
    by: dict[str, dict[str, Row]] = {}
    for row in one.rows:
        by.setdefault(row.canary, {})[row.method] = row
    found = []
    for name, rows in by.items():
        first = next(iter(rows.values()))
        cells = [name, _number(first.apart, 3), _number(first.exact)]
        for method in _methods(one):
            row = rows[method]
            most = row.most is not None and row.epsilon >= row.most * (1 - 1e-9) > 0
            cells.append(
                f"{_number(row.epsilon)}{' max' if most else ''}{' !' if row.refutes else ''}"
            )
        free = [row for row in rows.values() if row.assumes is None and row.most is not None]
        found.append([*cells, _number(max((row.most or 0.0) for row in free)) if free else "–"])
    return found


def summary(found: "list[Told]", table: Path, report: Path) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "audits": [
            {
                "setting": one.setting,
                "claim": vars(one.claim),
                "rows": [vars(row) for row in one.rows],
                "defenses": [vars(check) for check in one.checks],
                "verdict": one.verdict,
            }
            for one in found
        ],
        "table": str(table),
        "report": str(report),
    }


def _methods(one: "Told") -> list[str]:
    there = {row.method for row in one.rows}
    return [method for method in METHODS if method in there]


def _heads(one: "Told") -> list[str]:
    named: dict[str, str] = dict(zip(METHODS, HEADS[3:7], strict=True))
    return [*HEADS[:3], *(named[method] for method in _methods(one)), HEADS[7]]


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
