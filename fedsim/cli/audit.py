"""`fedsim audit`: how private a mechanism is at most, beside what it claims."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.console import Interrupted, err, out, print_line, print_report
from fedsim.cli.options import Allow, Json, Over, Set, Workers
from fedsim.core.errors import ClaimRefuted, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from adversary.auditing.claim import Claim
    from fedsim.audit.links import Check
    from fedsim.audit.recorded import Recorded
    from fedsim.audit.result import AuditResult
    from fedsim.audit.rows import Row


LEGEND = (
    "μ-GDP assumes a Gaussian mechanism,\n"
    "CP (Clopper–Pearson) assumes nothing. Bayes is credible, not a bound.\n"
    "Learned: half of the runs choose what to look at, the others are counted.\n"
    "Repeats: values that occur twice, which noise with a density never gives.\n"
    "Subsampled assumes Poisson sampling and Gaussian noise.\n"
    "!: refutes the claim, at a level at which all bounds hold together. "
    "max: no run had an error."
)


def audit(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN|CONFIG",
            help="Run folder, or TOML config file (default settings if omitted).",
        ),
    ] = None,
    *,
    set_: Set = None,
    over: Over = None,
    out_: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the results, finished parts are kept (runs/audit, or RUN/audit of a "
            "run, if omitted).",
        ),
    ] = None,
    workers: Workers = None,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Audit a mechanism with canaries. The exit code is 3 if its claim is refuted."""
    from fedsim import config as configs

    run = target if target is not None and target.is_dir() else None
    if run is not None and not (run / "config.toml").exists():
        raise ConfigError(f"{run}: must be a run folder or a TOML file, got no config.toml in it")
    if run is not None:
        from fedsim.run.run_folder import RunFolder

        RunFolder(run).check_trusted(allow or ())
    elif allow:
        raise ConfigError(f"--allow: must go with a run, got {allow[0]} for a config of yours")
    config = target if run is None else run / "config.toml"
    folder = out_ or (Path("runs/audit") if run is None else run / "audit")
    cells = configs.cells(config, set_ or (), [configs.parse_over(text) for text in over or ()])
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from fedsim.audit import table as audits
    from fedsim.audit.recorded import recorded
    from fedsim.config import Engine
    from fedsim.report.audits import write_audit_report
    from fedsim.run.setting import listed

    engine = None if workers is None else Engine(name="ray", workers=workers)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    in_run = None if run is None else recorded(run, allow or ())
    if in_run is not None and not as_json:
        out.print(recorded_line(in_run), soft_wrap=True)
    with Progress(*columns, console=err, transient=True, disable=as_json) as bar:
        task = bar.add_task("auditing", total=None)

        def show(setting: "AuditResult") -> None:
            if not as_json:
                bar.console.print("")
                print_setting(setting, out, several=len(cells) > 1)

        try:
            settings = audits.audits(
                cells,
                folder,
                run=run,
                engine=engine,
                on_result=show,
                on_runs=lambda name, done, total: bar.update(
                    task, description=escape(name), completed=done, total=total
                ),
            )
        except KeyboardInterrupt:
            raise Interrupted("stopped; the same command continues the audit") from None
    report = folder / audits.REPORT
    write_audit_report(settings, report, configs=listed(cells))
    if as_json:
        data = summary(settings, folder / audits.TABLE, report)
        out.print_json(data=data | {"recorded": None if in_run is None else vars(in_run)})
    else:
        out.print()
        print_line("Table", folder / audits.TABLE)
        print_report(report)
    verdicts = [in_run.verdict if in_run else None, *(setting.verdict for setting in settings)]
    if refuted := [verdict for verdict in verdicts if verdict]:
        raise ClaimRefuted("; ".join(refuted))


def recorded_line(in_run: "Recorded") -> str:
    """Return what the canaries in a run show of it."""
    shown = ", ".join(f"{name} ≥ {value:.3g}" for name, value in in_run.bounds.items())
    return (
        f"In the run, until round {in_run.round}: {shown} (bounds, {100 * in_run.confidence:g} % "
        f"each). Theory claims {in_run.theory:.3g}.\n"
    )


def print_setting(setting: "AuditResult", console: "Console", *, several: bool) -> None:
    """Print one setting: its claim, a line per canary, and what its defenses are."""
    from rich.table import Table

    if several:
        console.print(setting.setting, style="bold", markup=False, soft_wrap=True)
    console.print(setting.claimed, markup=False, soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False)
    for place, head in enumerate(_heads(setting)):
        table.add_column(head, justify="left" if place == 0 else "right")
    for cells in lines(setting):
        table.add_row(*cells)
    console.print(table)
    first = setting.rows[0]
    console.print(
        f"\nEach bound holds at {100 * (first.confidence or 0):g} %, at δ = {first.delta:g}. "
        + LEGEND,
        style="dim",
        soft_wrap=True,
    )
    if setting.claim.round_mu is not None and first.exact is None:
        console.print(
            "The exact ε is known only for a single local step per round, and in the last model "
            "only for a chosen gradient.",
            style="dim",
        )
    if setting.blunt:
        console.print(f"{setting.blunt}.", style="yellow", markup=False, soft_wrap=True)
    for check in setting.checks:
        style = "dim" if check.holds else "red"
        console.print(f"{check.link}: {check.measured}", style=style, markup=False, soft_wrap=True)
    if setting.conclusion:
        console.print(f"\n{setting.conclusion}", markup=False, soft_wrap=True)


def lines(setting: "AuditResult") -> list[list[str]]:
    """Return the cells of a line per canary."""
    by: dict[str, dict[str, Row]] = {}
    for row in setting.rows:
        by.setdefault(row.canary, {})[row.method] = row
    table = []
    for name, rows in by.items():
        first = next(iter(rows.values()))
        cells = [name, _number(first.apart, 3), _number(first.exact)]
        for method in _methods(setting):
            row = rows[method]
            most = row.most is not None and row.epsilon >= row.most * (1 - 1e-9) > 0
            cells.append(
                f"{_number(row.epsilon)}{' max' if most else ''}{' !' if row.refutes else ''}"
            )
        free = [row for row in rows.values() if row.assumes is None and row.most is not None]
        table.append([*cells, _number(max((row.most or 0.0) for row in free)) if free else "–"])
    return table


def summary(settings: "list[AuditResult]", table: Path, report: Path) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "audits": [
            {
                "setting": setting.setting,
                "claim": _claim(setting.claim),
                "rows": [vars(row) for row in setting.rows],
                "defenses": [_check(check) for check in setting.checks],
                "verdict": setting.verdict,
                "conclusion": setting.conclusion,
            }
            for setting in settings
        ],
        "table": str(table),
        "report": str(report),
    }


def _methods(setting: "AuditResult") -> list[str]:
    from adversary.auditing import METHODS

    available = {row.method for row in setting.rows}
    return [method for method in METHODS if method in available]


def _heads(setting: "AuditResult") -> list[str]:
    from adversary.auditing import METHODS

    heads = [METHODS[name].head for name in _methods(setting)]
    return ["canary", "Δ/C", "exact ε", *heads, "CP could show"]


def _claim(claim: "Claim") -> dict[str, Any]:
    return {
        "epsilon": claim.epsilon,
        "delta": claim.delta,
        "relation": None if claim.epsilon is None else claim.relation.value,
        "mu": claim.round_mu,
        "beside": claim.beside,
    }


def _check(check: "Check") -> dict[str, Any]:
    return {"link": check.link, "holds": check.holds, "said": check.measured}


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
