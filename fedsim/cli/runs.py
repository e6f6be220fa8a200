"""`fedsim runs`: the runs in a folder, with what came of them."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.console import out, print_next, say
from fedsim.cli.options import Json
from fedsim.core.errors import ConfigError

if TYPE_CHECKING:
    from fedsim.run.glance import Glance

RUNS = Path("runs")
STYLES = {"running": "green", "failed": "red", "unreadable": "red", "stopped": "yellow"}
NARROW = 100  # characters of a terminal in which a run takes several lines
HEADS = ("run", "date", "state", "rounds", "accuracy", "strongest attack", "setting")


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER…", help="Runs, or folders of runs (runs/ if omitted)."),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """List runs by date: setting, rounds, accuracy, the strongest attack, and how they stand.

    A setting is what differs from the defaults, without what all listed runs share.
    """
    places = folders or [RUNS]
    if missing := [folder for folder in folders or () if not folder.is_dir()]:
        raise ConfigError(f"FOLDER: must be an existing folder, got {missing[0]}")
    say("Loading …", quiet=as_json)
    from fedsim.run.glance import glances

    listing = glances(places)
    if as_json:
        out.print_json(data={"runs": [as_data(each) for each in listing]})
        return
    if not listing:
        out.print(f"No runs in {', '.join(map(str, places))}.", soft_wrap=True)
        print_next("fedsim run")
        return
    _print(listing)
    out.print()
    print_next(f"fedsim view {shlex.quote(str(places[0]))}")


def as_data(each: "Glance") -> dict[str, Any]:
    """Return one run as JSON has it; the setting is all that differs from the defaults."""
    from fedsim.run.setting import changed

    best = each.strongest
    return {
        "run": str(each.path),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each.date)),
        "state": each.state,
        "reason": each.reason,
        "rounds": each.rounds,
        "planned": each.planned,
        "accuracy": each.accuracy,
        "strongest": vars(best) if best else None,
        "attacks": each.attacks,
        "setting": changed(each.config) if each.config else None,
    }


def settings_of(listing: "Sequence[Glance]") -> list[str]:
    """Return for each run what tells it apart from the others, or why it cannot be read."""
    from fedsim.run.setting import apart, words

    texts = iter(map(words, apart([each.config for each in listing if each.config])))
    settings = [next(texts) if each.config else "" for each in listing]
    pairs = zip(settings, listing, strict=True)
    return [": ".join(filter(None, [text, each.reason])) for text, each in pairs]


def rounds_text(each: "Glance") -> str:
    """Return `3/10`, or the rounds alone where nobody says how many there are to be."""
    if each.state == "unreadable":
        return "–"
    return str(each.rounds) if each.planned is None else f"{each.rounds}/{each.planned}"


def _print(listing: "Sequence[Glance]") -> None:
    """Print a table that fits a terminal; elsewhere a line per run, whole."""
    from fedsim.core.units import written

    rows: list[tuple[str, ...]] = [HEADS]
    for each, setting in zip(listing, settings_of(listing), strict=True):
        date = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.date))
        accuracy, best = written("accuracy", each.accuracy), each.attacks
        cells = (str(each.path), date, each.state, rounds_text(each), accuracy, best, setting)
        rows.append(tuple(" ".join(cell.split()) for cell in cells))
    if not out.is_terminal:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            pairs = zip(row, widths, strict=True)
            out.print(
                "  ".join(f"{cell:<{width}}" for cell, width in pairs).rstrip(), soft_wrap=True
            )
        return
    if out.width < NARROW:
        for path, date, state, rounds, accuracy, best, setting in rows[1:]:
            out.print(path, style=STYLES.get(state))
            out.print(f"  {date}  {state}  {rounds}  accuracy {accuracy}")
            out.print(f"  {best}  {setting}")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in HEADS:
        table.add_column(head, overflow="fold", no_wrap=head in HEADS[1:5])
    for row in rows[1:]:
        table.add_row(*row, style=STYLES.get(row[2]))
    out.print(table)
