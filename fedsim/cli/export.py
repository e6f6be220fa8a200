"""`fedsim export`: a run's ledger and metrics for other programs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.console import out, print_line
from fedsim.core.errors import ConfigError


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    *,
    csv: Annotated[bool, typer.Option("--csv", help="Write one CSV table.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
    out_: Annotated[
        Path | None, typer.Option("--out", help="File (standard output if omitted).")
    ] = None,
) -> None:
    """Write the ledger and the metrics of a run as CSV or JSON.

    In CSV, the column `table` tells the rows of the ledger ("leakage") from
    the metrics. In JSON, NaN and infinity are null.
    """
    if csv == json:
        got = "both" if csv else "none"
        raise ConfigError(f"--csv, --json: exactly one must be given, got {got}")
    from fedsim.core.files import write_whole
    from fedsim.run.exported import as_csv, as_json
    from fedsim.run.run_folder import RunFolder

    folder = RunFolder(run)
    _check(run, out_)
    data = as_csv(folder) if csv else f"{as_json(folder)}\n".encode()
    if out_ is not None:
        write_whole(out_, lambda file: file.write_bytes(data))
        print_line("Written", out_)
    elif sys.stdout.isatty():  # text of a recording does not steer the terminal
        out.print(data.decode(), soft_wrap=True, end="")
    else:
        sys.stdout.buffer.write(data)


def _check(run: Path, target: Path | None) -> None:
    """Refuse a target that is a folder, or one of the run's own files.

    Raises:
        ConfigError: It is.
    """
    from fedsim.run.links import ENTRIES

    if target is None:
        return
    if target.is_dir():
        raise ConfigError(f"--out: must be a file, got the folder {target}")
    place = target.resolve()
    if any(place.is_relative_to((run / name).resolve()) for name in ENTRIES):
        raise ConfigError(f"--out: must be no file of the run, got {target}")
