"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.core.errors import ConfigError

ConfigFile = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help="TOML config file (default settings if omitted)."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeat for more."),
]
Over = Annotated[
    list[str] | None,
    typer.Option(
        "--over", metavar="KEY=V,V,…", help="Use each value of one setting; repeat for a grid."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Number of parallel workers on Ray (this process if omitted)."
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="NAME",
        help="Module, path or address that the recording's config may use, if the run is not your "
        "own; repeat for more.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Exit with 3 if no attack of a family gave an answer."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def parse_shape(text: str, flag: str) -> tuple[int, ...]:
    """Return the shape in `3x32x32`.

    Raises:
        ConfigError: It is none.
    """
    try:
        shape = tuple(int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ConfigError(f"{flag}: must be whole numbers like 3x32x32, got '{text}'")
    return shape
