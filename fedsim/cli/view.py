"""`fedsim view`: the runs of a folder in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.console import out, print_line, say
from fedsim.cli.options import Json
from fedsim.core.errors import ConfigError


def view(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="A folder of runs, or a run.")
    ] = Path("runs"),
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine; 0 for a free one.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Serve the runs of a folder to a browser on this machine, and follow those that go on.

    Ctrl-C stops it. Nothing is written, and nobody else on the network can reach it.
    """
    if not folder.is_dir():
        raise ConfigError(f"FOLDER: must be an existing folder, got {folder}")
    say("Loading …", quiet=as_json)
    from fedsim.view.server import Server

    with Server(folder, port) as server:
        if as_json:
            out.print_json(data={"url": server.url, "folder": str(folder)})
        else:
            print_line("Serving", f"{folder} at {server.url}")
            print_line("Next", "open that address in a browser; Ctrl-C stops")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
