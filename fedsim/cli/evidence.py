"""`fedsim evidence`: what a red-team exercise owes its auditors, as one folder."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.console import out, print_line, print_next
from fedsim.cli.options import Allow, Json


def evidence(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    *,
    out_: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder of the pack.")],
    with_pictures: Annotated[
        bool,
        typer.Option(
            "--with-pictures", help="Show recovered examples in the report; personal data."
        ),
    ] = False,
    with_truth: Annotated[
        bool,
        typer.Option("--with-truth", help="Copy the clients' ground truth; personal data."),
    ] = False,
    with_uploads: Annotated[
        bool,
        typer.Option(
            "--with-uploads", help="Copy the uploads; attacks recover personal data from them."
        ),
    ] = False,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Write the evidence of a run: report, tables, config, versions, checksums, and a text.

    The text says which attacks ran, which failed and why, what was not
    tested, and which questions of AISVS, CoSAI and a DPIA the run answers.
    """
    from fedsim.evidence.pack import SUMS, write_pack
    from fedsim.run.run_folder import RunFolder

    write_pack(
        RunFolder(run),
        out_,
        pictures=with_pictures,
        truth=with_truth,
        uploads=with_uploads,
        allow=allow or (),
    )
    if as_json:
        out.print_json(data={"evidence": str(out_)})
        return
    print_line("Evidence", out_ / "evidence.md")
    if with_pictures or with_truth or with_uploads:
        print_line("Note", "The folder holds personal data if the run's data are.", "yellow")
    print_next(f"cd {shlex.quote(str(out_))} && sha256sum -c {SUMS}")
