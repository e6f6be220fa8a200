"""`fedsim config`: every setting, with what it is."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

out = Console(highlight=False)


def config(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="TOML config file (default settings if omitted).",
            show_default=False,
        ),
    ] = None,
    *,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON schema; editors complete TOML from it.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of text.")
    ] = False,
) -> None:
    """Print all settings as TOML, with a comment for each."""
    from fedsim import config as configs

    if schema:
        out.print_json(data=configs.schema())
        return
    resolved = configs.read(path, set_ or ())
    if as_json:
        out.print_json(data=resolved.model_dump(mode="json"))
        return
    out.print(configs.commented(resolved), markup=False, soft_wrap=True, end="")
