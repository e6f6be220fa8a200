"""`fedsim audit`: how private a mechanism is at most, beside what it claims."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.audited import print_setting, recorded_line, summary
from fedsim.cli.console import Interrupted, err, out, print_line, print_report
from fedsim.cli.options import Allow, Json, Over, Set, Workers
from fedsim.core.errors import ClaimRefuted, ConfigError

if TYPE_CHECKING:
    from fedsim.audit.result import AuditResult
    from fedsim.config import Cell


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
    run = target if target is not None and target.is_dir() else None
    config = _config(target, run, allow or ())
    from fedsim import config as configs
    from fedsim.audit.recorded import recorded
    from fedsim.audit.table import REPORT, TABLE
    from fedsim.report.audits import write_audit_report
    from fedsim.run.setting import listed

    cells = configs.cells(config, set_ or (), [configs.parse_over(text) for text in over or ()])
    folder = out_ or (Path("runs/audit") if run is None else run / "audit")
    in_run = None if run is None else recorded(run, allow or ())
    if in_run is not None and not as_json:
        out.print(recorded_line(in_run), soft_wrap=True)
    settings = _audited(cells, folder, run, workers, quiet=as_json)
    report = folder / REPORT
    write_audit_report(settings, report, configs=listed(cells))
    if as_json:
        data = summary(settings, folder / TABLE, report)
        out.print_json(data=data | {"recorded": None if in_run is None else vars(in_run)})
    else:
        out.print()
        print_line("Table", folder / TABLE)
        print_report(report)
    verdicts = [in_run.verdict if in_run else None, *(setting.verdict for setting in settings)]
    if refuted := [verdict for verdict in verdicts if verdict]:
        raise ClaimRefuted("; ".join(refuted))


def _config(target: Path | None, run: Path | None, allow: Sequence[str]) -> Path | None:
    """Return the config file of a run folder, or the user's own.

    Raises:
        ConfigError: The folder is no run, or `--allow` goes with no run.
        BadRecording: The run is not the user's own, and its config needs more than is allowed.
    """
    if run is None:
        if allow:
            raise ConfigError(f"--allow: must go with a run, got {allow[0]} for a config of yours")
        return target
    if not (run / "config.toml").exists():
        raise ConfigError(f"{run}: must be a run folder or a TOML file, got no config.toml in it")
    from fedsim.run.run_folder import RunFolder

    RunFolder(run).check_trusted(allow)
    return run / "config.toml"


def _audited(
    cells: "Sequence[Cell]", folder: Path, run: Path | None, workers: int | None, *, quiet: bool
) -> "list[AuditResult]":
    """Audit each setting with a bar of its runs, and print it as it ends."""
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from fedsim.audit.table import audits
    from fedsim.config import Engine

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    hidden = quiet or not err.is_terminal
    with Progress(*columns, console=err, transient=True, disable=hidden) as bar:
        task = bar.add_task("auditing", total=None)

        def show(setting: "AuditResult") -> None:
            if not quiet:
                bar.console.print("")
                print_setting(setting, out, several=len(cells) > 1)

        def move(name: str, done: int, total: int) -> None:
            bar.update(task, description=escape(name), completed=done, total=total)

        try:
            return audits(
                cells,
                folder,
                run=run,
                engine=None if workers is None else Engine(name="ray", workers=workers),
                on_result=show,
                on_runs=move,
            )
        except KeyboardInterrupt:
            raise Interrupted("stopped; the same command continues the audit") from None
