"""What there is to choose from, one line each."""

from collections.abc import Callable, Mapping
from typing import Any

from fedsim.core.catalog import options_of, with_extensions

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
    "inline": "all clients in this process, one after the other",
    "ray": "clients on Ray actors, of this machine or of the cluster at engine.address",
}


def describe(kind: str) -> dict[str, str]:
    """Return name → summary and options, for one kind of part."""
    if kind == "engines":
        return ENGINES
    if kind == "attacks":
        from adversary.attacks import ATTACKS

        known = with_extensions(ATTACKS, kind)
        return {
            name: f"{attack.family}: {attack.summary}{_options(options_of(attack.infer))}"
            for name, attack in known.items()
        }
    if kind == "games":
        from adversary.games.samplers import GAMES

        return {name: game.summary for name, game in GAMES.items()}
    if kind == "strategies":
        from strategies import STRATEGIES, option_names

        functions = with_extensions(STRATEGIES, kind)
        return {
            name: f"{_first_line(make)}{_options(dict.fromkeys(option_names(make)))}"
            for name, make in functions.items()
        }
    functions = _functions(kind)
    if kind == "defenses":
        return {
            name: f"{_first_line(make)} {_promise(make)}{_options(options_of(make))}"
            for name, make in functions.items()
        }
    return {
        name: f"{_first_line(make)}{_options(options_of(make))}" for name, make in functions.items()
    }


def _functions(kind: str) -> Mapping[str, Callable[..., Any]]:
    if kind == "defenses":
        from defenses import DEFENSES

        return with_extensions(DEFENSES, kind)
    if kind == "datasets":
        from fedsim.data import DATASETS

        return with_extensions(DATASETS, kind)
    from fedsim.models import MODELS

    return with_extensions(MODELS, kind)


def _promise(make: Callable[..., Any]) -> str:
    """Return what a defense guarantees with its defaults; nothing where it has none."""
    try:
        promise = make().promise
    except (TypeError, ValueError):
        return ""
    if not promise.formal:
        return f"Heuristic: {promise.statement}."
    return f"Formal: {promise.statement}; neighbours {promise.relation}."


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0] if function.__doc__ else ""


def _options(options: Mapping[str, Any]) -> str:
    return f"  [{', '.join(options)}]" if options else ""
