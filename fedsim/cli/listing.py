"""`fedsim list`: the parts that a config can name, one line each, and all there is on one part."""

import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import typer

from fedsim.cli.cards import (
    REQUIRED,
    UNSET,
    Card,
    of_attack,
    of_defense,
    of_game,
    of_method,
    of_part,
    of_strategy,
)
from fedsim.cli.console import out, print_next
from fedsim.cli.imported import IMPORTED, imported
from fedsim.cli.options import Json
from fedsim.core.catalog import Entry, entries, options_of, with_extensions
from fedsim.core.errors import ConfigError, nearest

NEXT = {
    "attacks": "fedsim run --set {attack}",
    "audits": "fedsim audit",
    "datasets": "fedsim run --set data={name}",
    "defenses": "fedsim run --set {defense}",
    "engines": "fedsim run --engine {name}",
    "games": "fedsim game --set {game}",
    "models": "fedsim run --set model={name}",
    "strategies": "fedsim run --set federation.strategy={name}",
}
KINDS = {
    "attacks": "what the adversary does with an upload",
    "audits": "how an audit bounds ε from canaries: its methods",
    "datasets": "what clients train on",
    "defenses": "what a client does to its update before the upload",
    "engines": "where clients run",
    "games": "inference games: a secret, trials, and adversaries that guess it",
    "models": "what clients train",
    "strategies": "how the server aggregates",
}
OPTIONS = {"datasets": "data", "models": "model", "strategies": "federation.options"}  # sections
COLUMN = " --set data=adult --set game.column=sex --set game.value=Female"
USERS = " --set data=heart-disease --set game.column=hospital --set game.users=4"
ENGINES = {
    "batched": "clients run in this process, engine.batch at a time trained together",
    "inline": "all clients run in this process, one after the other",
    "ray": "clients run on Ray actors, on this machine or on the cluster at engine.address",
}
WIDTH, MARGIN = 100, 20  # characters of a card at most, and of its heads


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="attacks, audits (methods), datasets, defenses, engines, games, models or "
            "strategies (lists them if omitted).",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="One of them, or your own package.module:function, to see all that is said of it.",
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """List the parts that a config can name, or show one with its source and options."""
    if kind is None:
        _print_kinds(as_json=as_json)
        return
    if kind not in NEXT:
        raise ConfigError(f"list: must be a kind, got '{kind}'; {nearest(kind, NEXT)}")
    if name is None:
        _print_lines(kind, as_json=as_json)
        return
    shown = card(kind, name)
    if as_json:
        out.print_json(data=shown.as_json())
        return
    width = min(WIDTH, out.width)
    out.print("\n".join(_card_lines(shown, width)), soft_wrap=True)
    out.print()
    print_next(usage(kind, shown))


def card(kind: str, name: str) -> Card:
    """Return the card of one part, or of a user's own `package.module:function`.

    Raises:
        ConfigError: There is no part of this name; the sentence names the nearest. Or it cannot be
            imported, or it is none of this kind.
    """
    parts = _parts(kind)
    if ":" in name and name not in parts and kind in IMPORTED:
        return _cards(kind)(name, imported(kind, name, parts))
    if name not in parts:
        raise ConfigError(
            f"list {kind}: must be a known name, got '{name}'; {nearest(name, parts)}"
        )
    return _cards(kind)(name, parts[name])


def describe(kind: str) -> dict[str, str]:
    """Return name → summary and options, for one kind of part."""
    line = _lines(kind)
    return {name: line(part) for name, part in _parts(kind).items()}


def _print_kinds(*, as_json: bool) -> None:
    if as_json:
        out.print_json(data=KINDS)
        return
    for kind, line in KINDS.items():
        out.print(f"{kind:<12} {line}", soft_wrap=True)
    out.print()
    print_next("fedsim list attacks")


def _print_lines(kind: str, *, as_json: bool) -> None:
    from rich.table import Table

    lines = describe(kind)
    if as_json:
        out.print_json(data=lines)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, line in lines.items():
        table.add_row(name, line)
    out.print(table)
    out.print()
    print_next(f"fedsim list {kind} {next(iter(lines))}")


def usage(kind: str, shown: Card) -> str:
    """Return a command that uses a part, with its first option where it has one with a value."""
    first = next((it for it in shown.options if it.default not in (UNSET, REQUIRED)), None)
    inner = f", {first.name}={first.default}" if first else ""
    named = {
        "name": shlex.quote(shown.name),
        "attack": shlex.quote(f'attack=[{{name="{shown.name}"{inner}}}]'),
        "defense": shlex.quote(f'defense=[{{name="{shown.name}"{inner}}}]'),
        "game": shlex.quote(f'game.play=["{shown.name}"]'),
    }
    option = _column_for(shown.name) if kind == "games" else ""
    if first and kind in OPTIONS:
        option = f" --set {shlex.quote(f'{OPTIONS[kind]}.{first.name}={first.default}')}"
    return NEXT[kind].format_map(named) + option


def _column_for(game: str) -> str:
    """Return settings that give a game its secret column, where it has one."""
    from adversary.games import GAMES

    if not GAMES[game].has_column:
        return ""
    return USERS if game == "user" else COLUMN


def _card_lines(shown: Card, width: int) -> Iterator[str]:
    """Yield a card as text: a paragraph for each fact, then the options."""
    yield from (shown.name, "")
    for head, text in shown.facts.items():
        yield from _hanging(head, text, width)
    if not shown.options:
        yield from ("", "No options.")
        return
    yield from ("", "Options")
    for option in shown.options:
        yield from _hanging(f"  {option.name}", f"{option.type}; default {option.default}", width)
        yield from _hanging("", option.meaning, width)


def _hanging(head: str, text: str, width: int) -> list[str]:
    """Return a paragraph to the right of its head; a head that is too long has its own line."""
    wrapped = textwrap.wrap(text, max(30, width - MARGIN), break_on_hyphens=False)
    above = [head] if len(head) > MARGIN - 2 else []
    lines = [f"{'':<{MARGIN}}{line}" for line in wrapped]
    if head and not above and lines:
        lines[0] = f"{head:<{MARGIN}}{wrapped[0]}"
    return above + lines


def _parts(kind: str) -> Mapping[str, Any]:
    """Return the parts of a kind by name, those of packages with them."""
    if kind == "engines":
        return ENGINES
    if kind == "audits":
        from adversary.auditing import METHODS

        return METHODS
    if kind == "games":
        from adversary.games import GAMES

        return GAMES
    if kind == "attacks":
        from adversary.grading.selection import available

        return available()
    if kind == "strategies":
        from strategies import STRATEGIES

        return with_extensions(STRATEGIES, kind)
    return entries(_builtin(kind), kind)


def _builtin(kind: str) -> Mapping[str, Any]:
    if kind == "defenses":
        from defenses import DEFENSES

        return DEFENSES
    if kind == "datasets":
        from fedsim.data import DATASETS

        return DATASETS
    from fedsim.models import MODELS

    return MODELS


def _cards(kind: str) -> Callable[[str, Any], Card]:
    """Return what makes the card of a part."""
    made: dict[str, Callable[[str, Any], Card]] = {
        "attacks": of_attack,
        "audits": of_method,
        "defenses": of_defense,
        "engines": lambda name, text: Card(name, {"What it is": text, "Config": "engine.name"}),
        "games": of_game,
        "strategies": of_strategy,
    }
    return made.get(kind, of_part)


def _lines(kind: str) -> Callable[[Any], str]:
    """Return what sums up a part in one line."""
    summed: dict[str, Callable[[Any], str]] = {
        "attacks": lambda it: f"{it.family}: {it.summary}{_options(options_of(it.infer))}",
        "audits": lambda it: f"{it.guarantee}: {it.title}",
        "defenses": partial(_entry_line, promise=True),
        "engines": str,
        "games": lambda it: it.summary,
        "strategies": _strategy_line,
    }
    return summed.get(kind, _entry_line)


def _strategy_line(make: Callable[..., Any]) -> str:
    from strategies import option_names

    first = (make.__doc__ or "").strip().partition("\n")[0]
    return f"{first}{_options(dict.fromkeys(option_names(make)))}"


def _entry_line(entry: Entry, *, promise: bool = False) -> str:
    promised = _promise(entry) if promise else ""
    return f"{entry.summary}{promised}{_options(options_of(entry.make))}"


def _promise(entry: Entry) -> str:
    """Return what a defense guarantees with its defaults; nothing where it has none."""
    from defenses.registry import with_defaults

    defense = with_defaults(entry)
    if defense is None:
        return ""
    if not defense.promise.formal:
        return f" Heuristic: {defense.promise.statement}."
    return f" Formal: {defense.promise.statement}; neighbours {defense.promise.relation}."


def _options(options: Mapping[str, Any]) -> str:
    return f"  [{', '.join(options)}]" if options else ""
