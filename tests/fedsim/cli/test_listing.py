"""Listings, cards and help pages show all there is: nothing is taken for markup."""

import importlib
import inspect
import json
import re
import shlex

import pytest
import typer
from click import Context

from adversary.attacks import ATTACKS
from adversary.games import GAMES
from fedsim import config
from fedsim.cli import docstrings, listing
from fedsim.cli.cards import Card, Option, options, type_text
from fedsim.cli.main import app
from fedsim.core.errors import ConfigError
from fedsim.games import board
from tests.fedsim.cli.test_main import fedsim

CARDS = [(kind, name) for kind in listing.NEXT for name in listing.describe(kind)]


def flat(text):
    """Return a text without the places where lines are broken."""
    return "".join(text.split())


@pytest.mark.parametrize("kind", listing.NEXT)
def test_lists_show_every_name_summary_and_option(kind, capsys):
    code, out, _ = fedsim(capsys, "list", kind, "--json")
    lines = json.loads(out)
    assert code == 0
    assert lines
    assert all(line and "\n" not in line for line in lines.values())
    shown = fedsim(capsys, "list", kind)[1]
    for name, line in lines.items():
        assert name in shown
        assert all(flat(word) in flat(shown) for word in line.split())
    assert f"Next     fedsim list {kind} {next(iter(lines))}" in shown


def test_without_a_kind_the_kinds_are_listed(capsys):
    code, out, _ = fedsim(capsys, "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:-2]] == list(listing.NEXT)
    assert list(json.loads(fedsim(capsys, "list", "--json")[1])) == list(listing.NEXT)


@pytest.mark.parametrize(("kind", "name"), CARDS)
def test_every_part_has_a_card_and_a_command_that_uses_it(kind, name):
    card = listing.card(kind, name)
    assert card.name == name
    assert all(card.facts.values())
    assert card.facts
    text = flat("\n".join(listing._card_lines(card, 72)))
    for option in card.options:
        assert flat(f"{option.name}{option.type};default{option.default}") in text
    assert all(flat(fact) in text for fact in card.facts.values())
    assert json.dumps(card.as_json())
    assert name in listing.usage(kind, card) or kind == "audits"


@pytest.mark.parametrize("name", GAMES)
def test_the_command_of_a_game_gives_it_its_column(name):
    words = shlex.split(listing.usage("games", listing.card("games", name)))
    settings = [word for word, before in zip(words[1:], words, strict=False) if before == "--set"]
    board.check(config.read(None, settings).game)


def test_every_option_of_an_attack_is_explained():
    silent = [
        (name, option.name)
        for name, attack in ATTACKS.items()
        for option in options(attack.infer)
        if not option.meaning or not option.type or option.meaning.startswith("As for `")
    ]
    assert silent == []


def test_a_card_of_an_attack_says_what_the_paper_and_the_adversary_are(capsys):
    code, out, _ = fedsim(capsys, "list", "attacks", "llg-plus")
    assert code == 0
    for head in ("Paper", "Family", "Adversary", "Reads", "Server must know", "Exact when"):
        assert re.search(rf"^{head}  ", out, re.MULTILINE)
    assert '"paper" or "exact"; default "paper"' in out
    assert "(1 + 1/C), or C/(C − 1)" in " ".join(out.split())  # what llg says, not `As for llg`
    assert """Next     fedsim run --set 'attack=[{name="llg-plus", scale="paper"}]'""" in out
    data = json.loads(fedsim(capsys, "list", "attacks", "llg-plus", "--json")[1])
    assert data["options"]["scale"]["default"] == '"paper"'
    assert data["needs"] == "inputs, labels"


def test_cards_of_a_baseline_a_defense_and_a_strategy():
    assert "no update" in listing.card("attacks", "random").facts["Adversary"]
    assert "static:" in listing.card("attacks", "joint").facts["Adversary"]
    assert "adaptive" in listing.card("attacks", "llg").facts["Adversary"]
    assert listing.card("defenses", "dp-sgd").facts["Kind"] == "formal"
    assert "no proof" in listing.card("defenses", "clip").facts["Kind"]
    [eta, *_] = listing.card("strategies", "fedadam").options
    assert (eta.name, eta.type, eta.default) == ("eta", "number", "0.1")


OWN = {
    "attacks": "adversary.attacks.positions:ATTACK",
    "datasets": "fedsim.data.digits:digits",
    "defenses": "defenses.clip:clip",
    "models": "fedsim.models.mlp:mlp",
    "strategies": "flwr.serverapp.strategy:FedAdam",
}


@pytest.mark.parametrize("kind", OWN)
def test_a_users_own_part_has_the_card_of_a_part(kind):
    module, _, attribute = OWN[kind].partition(":")
    part = getattr(importlib.import_module(module), attribute)
    parts = listing._parts(kind)
    name = next(it for it, each in parts.items() if part in (each, getattr(each, "make", None)))
    own, builtin = listing.card(kind, OWN[kind]), listing.card(kind, name)
    assert own.name == OWN[kind]
    assert own.options == builtin.options
    paper = {} if kind == "attacks" else {"Paper"}  # an entry's paper is in its record
    assert own.facts == {head: builtin.facts[head] for head in builtin.facts if head not in paper}


@pytest.mark.parametrize(
    ("kind", "name", "rule"),
    [
        ("models", "fedsim.models.mlp:WIDTHS", "must be an importable"),
        ("models", "fedsim.core.units:__name__", "must be a function"),
        ("attacks", "fedsim.models.mlp:mlp", "must be an Attack"),
        ("engines", "fedsim.models.mlp:mlp", "must be a known name"),
    ],
)
def test_what_is_no_part_of_a_kind_is_refused(kind, name, rule):
    with pytest.raises(ConfigError, match=rule):
        listing.card(kind, name)


def test_what_looks_like_markup_is_shown(capsys, monkeypatch):
    def odd(*, scale: str = "[red]"):
        """Bold [bold]text[/bold] and a smile :smile:.

        Args:
            scale: One of [a], [/b].
        """

    monkeypatch.setattr(listing, "_parts", lambda kind: {"[x]": kind})
    monkeypatch.setattr(listing, "_lines", lambda kind: lambda _: f"{kind} [scale] [/] :smile:")
    monkeypatch.setattr(
        listing, "_cards", lambda _: lambda name, _: Card(name, {"A": odd.__doc__}, options(odd))
    )
    out = fedsim(capsys, "list", "attacks")[1]
    assert "[x]  attacks [scale] [/] :smile:" in out
    out = fedsim(capsys, "list", "attacks", "[x]")[1]
    assert "Bold [bold]text[/bold] and a smile :smile:." in out
    assert 'default "[red]"' in out
    assert "One of [a], [/b]." in out
    assert '--set \'attack=[{name="[x]", scale="[red]"}]\'' in out


@pytest.mark.parametrize(
    ("kind", "name", "nearest"),
    [("attacks", "eb-gsl", "eb-gls"), ("models", "mpl", "mlp"), ("engines", "rya", "ray")],
)
def test_an_unknown_name_gets_the_nearest(kind, name, nearest):
    with pytest.raises(ConfigError, match=f"got '{name}'; did you mean '{nearest}'"):
        listing.card(kind, name)


def test_types_are_said_in_words():
    assert type_text(int | None) == "whole number"
    assert type_text(tuple[float, ...]) == "list of number"
    assert type_text(bool) == "true or false"
    assert type_text("odd") == "odd"
    assert Option("a", "b", "c", "d").default == "c"


def test_docstrings_are_taken_apart():
    text = """Name: what.

    A. Author, 2020.

    Idea: one
    line. *Exact when*: no mark here.
    *Exact when*: always,
    and more.
    """
    assert docstrings.title(text) == "Name: what."
    assert docstrings.source(text) == "A. Author, 2020."
    assert docstrings.marked(text) == {
        "Idea": "one line. *Exact when*: no mark here.",
        "Exact when": "always, and more.",
    }
    assert docstrings.title(None) == docstrings.source(None) == ""
    assert docstrings.marked(None) == {}


def commands():
    """Yield the path and the object of every command."""

    def walk(command, path):
        inner = getattr(command, "commands", {})
        if not inner:
            yield pytest.param(command, id=" ".join(path))
        for name, part in inner.items():
            yield from walk(part, (*path, name))

    return list(walk(typer.main.get_command(app), ("fedsim",)))


@pytest.mark.parametrize("command", commands())
def test_a_help_page_explains_every_argument_and_escapes_nothing(command):
    page = command.get_help(Context(command))
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name
        assert flat(inspect.cleandoc(parameter.help)) in flat(page)
    assert "\\" not in page
    assert page.count("Arguments:") <= 1
    assert "Positional" not in page
