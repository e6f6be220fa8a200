"""`fedsim list`: the parts that a config can name, one line each."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from fedsim.cli.console import out
from fedsim.cli.options import Json
from fedsim.core.catalog import Entry, entries, options_of, with_extensions
from fedsim.core.errors import ConfigError, nearest

NEXT = {
    "attacks": "fedsim run --set 'attack=[\"llg\"]'",
    "datasets": "fedsim run --set data=mnist",
    "defenses": "fedsim run --set 'defense=[{name=\"clip\", bound=1.0}]'",
    "engines": "fedsim run --engine ray",
    "games": "fedsim game --set 'game.play=[\"membership\"]'",
    "models": "fedsim run --set model=mlp",
    "strategies": "fedsim run --set federation.strategy=fedadam",
}
ENGINES = {
    "batched": "clients run in this process, engine.batch at a time trained together",
    "inline": "all clients run in this process, one after the other",
    "ray": "clients run on Ray actors, on this machine or on the cluster at engine.address",
}


def list_(
    kind: Annotated[str, typer.Argument(metavar="KIND")],
    *,
    as_json: Json = False,
) -> None:
    """List the parts that a config can name, one line each.

    KIND is attacks, datasets, defenses, engines, games, models or strategies.
    """
    from rich.table import Table

    if kind not in NEXT:
        raise ConfigError(f"list: must be a kind, got '{kind}'; {nearest(kind, NEXT)}")
    lines = describe(kind)
    if as_json:
        out.print_json(data=lines)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, line in lines.items():
        table.add_row(name, line)
    out.print(table)
    out.print(f"\nNext     {NEXT[kind]}")


def describe(kind: str) -> dict[str, str]:
    """Return name → summary and options, for one kind of part."""
    if kind == "engines":
        return ENGINES
    if kind == "attacks":
        from adversary.attacks import ATTACKS

        attacks = with_extensions(ATTACKS, kind)
        return {
            name: f"{attack.family}: {attack.summary}{_options(options_of(attack.infer))}"
            for name, attack in attacks.items()
        }
    if kind == "games":
        from adversary.games import GAMES

        return {name: game.summary for name, game in GAMES.items()}
    if kind == "strategies":
        from strategies import STRATEGIES, option_names

        functions = with_extensions(STRATEGIES, kind)
        return {
            name: f"{_first_line(make)}{_options(dict.fromkeys(option_names(make)))}"
            for name, make in functions.items()
        }
    promise = _promise if kind == "defenses" else lambda _: ""
    return {
        name: f"{entry.summary}{promise(entry)}{_options(options_of(entry.make))}"
        for name, entry in entries(_builtin(kind), kind).items()
    }


def _builtin(kind: str) -> Mapping[str, Any]:
    if kind == "defenses":
        from defenses import DEFENSES

        return DEFENSES
    if kind == "datasets":
        from fedsim.data import DATASETS

        return DATASETS
    from fedsim.models import MODELS

    return MODELS


def _promise(entry: Entry) -> str:
    """Return what a defense guarantees with its defaults; nothing where it has none."""
    from defenses.registry import with_defaults

    defense = with_defaults(entry)
    if defense is None:
        return ""
    if not defense.promise.formal:
        return f" Heuristic: {defense.promise.statement}."
    return f" Formal: {defense.promise.statement}; neighbours {defense.promise.relation}."


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0] if function.__doc__ else ""


def _options(options: Mapping[str, Any]) -> str:
    return f"  [{', '.join(options)}]" if options else ""
