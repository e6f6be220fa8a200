"""`fedsim report`: pictures of one run, or of several compared."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.console import out, print_line, print_report
from fedsim.cli.options import Allow, Json


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="A run folder, or several to compare."),
    ],
    *,
    out_: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="HTML file (report.html in the run, or comparison.html of several, if omitted).",
        ),
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Client whose label counts are drawn (the most exposed if omitted)."
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write each figure as SVG, PDF and CSV here."),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            metavar="INCHES", help="Width of these figures (7 if omitted; 3.5 for one column)."
        ),
    ] = None,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Draw a run, or compare several, in one HTML file."""
    from fedsim import api

    if len(runs) > 1 and out_ is None:
        out_ = Path("comparison.html")  # one run's own report is not overwritten
    path = api.report(runs, out_, client=client, figures=figures, width=width, allow=allow or ())
    verdict = _verdict(runs[0]) if len(runs) == 1 else []
    if as_json:
        folder = {"figures": str(figures)} if figures else {}
        out.print_json(data={"report": str(path), "verdict": verdict, **folder})
        return
    for paragraph in verdict:
        out.print(paragraph, soft_wrap=True)
    if figures:
        print_line("Figures", figures)
    print_report(path)


def _verdict(run: Path) -> list[str]:
    """Return the verdict on a run; nothing that its config names is imported."""
    from fedsim.core.catalog import nothing_imported
    from fedsim.report.verdict import verdict_of
    from fedsim.run.run_folder import RunFolder

    with nothing_imported():
        return verdict_of(RunFolder(run)).paragraphs
