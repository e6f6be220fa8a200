"""`fedsim config`: every setting, with what it is."""

from typing import Annotated

import typer

from fedsim.cli.console import out
from fedsim.cli.options import ConfigFile, Json, Set


def config(
    path: ConfigFile = None,
    *,
    set_: Set = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON schema; editors complete TOML from it.")
    ] = False,
    as_json: Json = False,
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
    out.print(configs.commented(resolved), soft_wrap=True, end="")
