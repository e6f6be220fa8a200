"""`fedsim config`: every setting, with what it is."""

import shlex
from dataclasses import asdict
from typing import Annotated

import typer

from fedsim.cli.console import out, print_next
from fedsim.cli.options import ConfigFile, Json, Set
from fedsim.core.errors import ConfigError


def config(
    path: ConfigFile = None,
    *,
    set_: Set = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON schema; editors complete TOML from it.")
    ] = False,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", metavar="WORDS", help="Print only settings that have these words in them."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print all settings as TOML, with a comment for each."""
    from fedsim import config as configs

    if schema:
        out.print_json(data=configs.schema())
        return
    if search is not None:
        _print_keys(search, as_json=as_json)
        return
    resolved = configs.read(path, set_ or ())
    if as_json:
        out.print_json(data=resolved.model_dump(mode="json"))
        return
    out.print(configs.commented(resolved), soft_wrap=True, end="")


def _print_keys(words: str, *, as_json: bool) -> None:
    """Print the settings that have some words in them, those with the word in their name first.

    Raises:
        ConfigError: There are none.
    """
    from fedsim import config as configs

    matching = configs.search(words)
    if not matching:
        hint = configs.nearest_key(words.strip().replace(" ", "_"), ())
        raise ConfigError(f"--search: must be words of a setting, got '{words}'; {hint}")
    if as_json:
        out.print_json(data=[{"key": key.path, **asdict(key)} for key in matching])
        return
    for key in matching:
        rule = f", {key.rule}" if key.rule else ""
        out.print(f"{key.path} ({key.type}{rule}; default: {key.default})", soft_wrap=True)
        out.print(f"    {key.description}", soft_wrap=True)
    out.print()
    print_next(f"fedsim run --set {shlex.quote(matching[0].example)}")
