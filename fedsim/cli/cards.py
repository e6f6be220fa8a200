"""What is known of one part: its source, what it needs, and its options."""

import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from fedsim.cli import docstrings
from fedsim.core.catalog import Entry, options_of

if TYPE_CHECKING:
    from inspect import Parameter

    from adversary.attack import Attack
    from adversary.auditing.method import Method
    from adversary.games.game import Game
    from defenses.promise import Promise

UNSET, REQUIRED = "not set", "must be given"
WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


@dataclass(frozen=True)
class Option:
    """One option of a part; `default` is TOML, or says that there is none."""

    name: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Card:
    """All there is to say of one part.

    Attributes:
        name: As a config names it.
        facts: What is said of it, by head.
        options: What can be set.
    """

    name: str
    facts: Mapping[str, str]
    options: tuple[Option, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the card as data."""
        options = {it.name: asdict(it) for it in self.options}
        return {"name": self.name, **_keyed(self.facts), "options": options}


SCHEDULE = (  # of every attack; see `adversary.schedule`
    Option("every", WORDS[int], "1", "Attack rounds 1, 1 + every, 1 + 2·every, and so on."),
    Option("clients", "list of text", UNSET, "Clients to attack; all if omitted."),
    Option("memory", WORDS[float], UNSET, "GB it may take; half of what is free if omitted."),
)


def of_attack(name: str, attack: "Attack") -> Card:
    """Return an attack's card, most of it from the docstring of its module."""
    from adversary.grading.families import FAMILIES

    function: Any = docstrings.function_of(attack.infer)
    module = sys.modules[function.__module__].__doc__
    family = FAMILIES.get(attack.family)
    metrics = family.ranked if family else ()
    marked = docstrings.marked(module)
    facts = {
        "What it does": attack.summary,
        "Method": docstrings.title(module),
        "Paper": docstrings.source(module),
        "Family": f"{attack.family}{' (' + ', '.join(metrics) + ')' if metrics else ''}",
        "Adversary": _adversary(attack),
        "Reads": _reads(attack),
        "Needs": ", ".join(attack.needs) or "nothing beyond the update and the model",
        **{mark: text for mark, text in marked.items() if mark != "Idea"},
        "Idea": marked.get("Idea", ""),
    }
    return Card(name, _said(facts), (*options(attack.infer), *SCHEDULE))


def of_defense(name: str, entry: Entry) -> Card:
    """Return a defense's card: what it does, and what it guarantees with its defaults."""
    from defenses.registry import with_defaults

    defense = with_defaults(entry)
    return _of_entry(name, entry, _promised(defense.promise) if defense else {})


def of_part(name: str, entry: Entry) -> Card:
    """Return the card of a model or a data set."""
    return _of_entry(name, entry, {})


def of_strategy(name: str, make: Callable[..., Any]) -> Card:
    """Return the card of a Flower strategy; its options are numbers."""
    from inspect import signature

    from strategies import option_names

    parameters = signature(make).parameters
    facts = {
        "What it does": docstrings.title(make.__doc__),
        "Details": docstrings.details(make),
        "Made by": f"{make.__module__}.{make.__qualname__}",
    }
    made = (_option(key, parameters[key], "") for key in option_names(make))
    return Card(name, _said(facts), tuple(made))


def of_game(name: str, game: "Game") -> Card:
    """Return the card of an inference game; its settings are in the section `game`."""
    module = sys.modules[game.sample.__module__].__doc__
    facts = {
        "What is guessed": game.summary,
        "How it is played": docstrings.title(module),
        "Known record": "yes" if game.has_target else "no",
        "Needs a column": "yes, game.column" if game.has_column else "no",
    }
    return Card(name, _said(facts))


def of_method(name: str, method: "Method") -> Card:
    """Return the card of an audit method."""
    function = next(
        it
        for it in (
            method.of_updates,
            method.of_records,
            method.of_features,
            method.of_sampled,
            *method.tests.values(),
        )
        if it
    )
    module = sys.modules[docstrings.function_of(function).__module__].__doc__
    audits = ["runs of a mechanism (fedsim audit)"] * method.of_runs
    audits += ["update canaries in a run"] * bool(method.of_updates)
    audits += ["record canaries in a run"] * bool(method.of_records)
    facts = {
        "What it is": docstrings.title(module),
        "Paper": docstrings.source(module).removeprefix("Source: "),
        "Guarantee": str(method.guarantee),
        "Audits": ", ".join(audits),
        **docstrings.marked(module),
    }
    return Card(name, _said(facts))


def options(function: Callable[..., Any]) -> tuple[Option, ...]:
    """Return a function's options with types, defaults, and what its docstring says of them."""
    meanings = docstrings.arguments(docstrings.function_of(function))
    return tuple(
        _option(name, parameter, meanings.get(name, ""))
        for name, parameter in options_of(function).items()
    )


def type_text(annotation: Any) -> str:
    """Return in words which values of TOML a type takes."""
    if annotation in WORDS:
        return WORDS[annotation]
    if isinstance(annotation, str):
        return annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:  # with its range, which the docstring has in words
        return type_text(arguments[0])
    if origin is Literal:
        return " or ".join(map(json.dumps, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(it) for it in arguments if it is not type(None))
    if arguments:
        return f"list of {type_text(arguments[0])}"
    return getattr(annotation, "__name__", str(annotation))


def _option(name: str, parameter: "Parameter", meaning: str) -> Option:
    from fedsim.config.reference import literal

    default = parameter.default
    if default is parameter.empty:
        shown = REQUIRED
    else:
        shown = UNSET if default is None else literal(default)
    annotation = parameter.annotation
    return Option(
        name, "" if annotation is parameter.empty else type_text(annotation), shown, meaning
    )


def _of_entry(name: str, entry: Entry, facts: Mapping[str, str]) -> Card:
    function: Any = docstrings.function_of(entry.make)
    facts = {
        "What it is": docstrings.title(function.__doc__) or "a part without a docstring",
        "Details": docstrings.details(function),
        "Paper": entry.paper,
        **facts,
    }
    return Card(name, _said(facts), options(entry.make))


def _promised(promise: "Promise") -> dict[str, str]:
    kind = "formal" if promise.formal else "heuristic: no proof is behind it"
    return {
        "Promise": promise.statement,
        "Kind": kind,
        "Neighbours": str(promise.relation or ""),
        "Mechanism": promise.mechanism or "",
    }


def _adversary(attack: "Attack") -> str:
    from adversary.adaptive.labels import TWINS

    if attack.baseline:
        return "a baseline, which looks at no update"
    if attack.rehearses or (attack.has_twin and attack.family in TWINS):
        return "static, and adaptive beside it where clients defend and it knows how"
    return "static: it does not use what it knows of a defense"


def _reads(attack: "Attack") -> str:
    read = {
        "head": "a linear head's gradient",
        "first layer": "a fully connected first layer's gradient",
    }
    what = read.get(attack.reads, "whatever is uploaded")
    return f"{what}; asks about all of a client's rounds so far" if attack.over_rounds else what


def _said(facts: Mapping[str, str]) -> dict[str, str]:
    return {head: text for head, text in facts.items() if text}


def _keyed(facts: Mapping[str, str]) -> dict[str, str]:
    return {head.lower().replace(" ", "_"): text for head, text in facts.items()}
