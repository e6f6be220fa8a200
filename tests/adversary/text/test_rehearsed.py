"""Attacks on tokens by adversaries that know the clients' defense."""

from dataclasses import replace

import pytest
import torch

from adversary.adaptive.labels import adaptive
from adversary.attacks.positions import ATTACK as POSITIONS
from adversary.attacks.row_bayes import ATTACK as ROW_BAYES
from adversary.attacks.token_rows import ATTACK as TOKEN_ROWS
from adversary.grading.answers import attack_view
from adversary.grading.families import FAMILIES
from defenses import build as build_defenses
from fedsim import models
from fedsim.config import parse
from fedsim.core.form import Form
from fedsim.core.rng import generator
from fedsim.core.types import View
from tests.adversary.text.small import gradient
from tests.adversary.text.test_attacks import (
    INPUTS,
    LENGTH,
    SIZE,
    TARGETS,
    auxiliary_of,
    graded,
    language,
    seen,
)


def both(attack, rows, name, **options):
    """Return what the static and the adaptive adversary reach on a defended gradient."""
    model = language()
    defense = build_defenses(parse({"defense": [{"name": name, **options}]}).defense)
    plain = gradient(model, INPUTS[rows], TARGETS[rows])
    delta, _ = defense.apply(plain, defense.init(plain), generator(0, "defense"))
    view, truth = seen(model, rows, delta=delta)
    knowing = replace(auxiliary_of(model), defense=defense)
    return [graded(each, view, truth, knowing)[0] for each in (attack, adaptive(attack))]


def test_signs_of_one_text_are_put_in_order():
    """A token that stands once has the signs of its position, to the bit."""
    static, knowing = both(POSITIONS, torch.tensor([7]), "sign", magnitude=1e-3)
    assert static["token_f1"] < 0.5
    assert knowing["token_f1"] > 0.8


def test_who_knows_the_noise_reads_more_of_the_tokens():
    rows = torch.arange(4)
    static, knowing = both(TOKEN_ROWS, rows, "gaussian", std=0.03)
    assert knowing["f1"] > static["f1"]
    static, knowing = both(ROW_BAYES, rows, "gaussian", std=0.03)
    assert knowing["asr"] >= static["asr"] - 0.05


def frozen(*layers, rows):
    """Return a view, its truth, and what an adversary that knows of frozen layers has."""
    model = language()
    defense = build_defenses(
        parse({"defense": [{"name": "freeze", "layers": list(layers)}]}).defense
    )
    plain = gradient(model, INPUTS[rows], TARGETS[rows])
    delta, _ = defense.apply(plain, defense.init(plain), generator(0, "defense"))
    return *seen(model, rows, delta=delta), replace(auxiliary_of(model), defense=defense)


def test_who_knows_of_a_frozen_embedding_learns_from_the_head():
    view, truth, knowing = frozen("tokens", rows=torch.arange(2))
    got, blind, _ = graded(adaptive(TOKEN_ROWS), view, truth, knowing)
    assert got["f1"] > blind["f1"] + 0.2
    got, blind, _ = graded(adaptive(ROW_BAYES), view, truth, knowing)
    assert got["asr"] > blind["asr"] + 0.2


@pytest.mark.parametrize("attack", [TOKEN_ROWS, ROW_BAYES, POSITIONS], ids=lambda it: it.name)
def test_adapters_alone_are_refused_though_the_defense_is_public(attack):
    view, _, knowing = frozen("tokens", rows=torch.arange(1))
    tables = {"tokens.weight", "head.weight", "positions.weight"}
    keep = lambda values: {name: it for name, it in values.items() if name not in tables}
    latest = view.latest
    update = replace(latest.update, delta=keep(latest.update.delta))
    view = View([replace(latest, sent=keep(latest.sent), update=update)])
    (answer,) = attack_view(view, [adaptive(attack)], knowing, seed=0)
    assert answer.refused, answer.reason


@pytest.mark.parametrize("attack", [TOKEN_ROWS, POSITIONS], ids=lambda it: it.name)
def test_of_a_classifier_behind_noise_both_adversaries_give_the_static_answer(attack):
    options = parse({"model": {"name": "bert", "width": 64}}).model
    model = models.build(options, Form((LENGTH,), 3, torch.int64, SIZE), seed=0)
    defense = build_defenses(parse({"defense": [{"name": "gaussian", "std": 1e-3}]}).defense)
    delta, _ = defense.apply(
        gradient(model, INPUTS[:1], torch.tensor([2])), {}, generator(0, "defense")
    )
    view, truth = seen(model, torch.arange(1), delta=delta)
    labels = torch.arange(300) % 3
    auxiliary = replace(auxiliary_of(model), num_classes=3, labels=labels, per_token=False)
    static, blind, _ = graded(attack, view, truth, auxiliary)
    metric = "f1" if attack is TOKEN_ROWS else "token_f1"
    assert static[metric] > blind[metric]
    knowing = replace(auxiliary, defense=defense)
    assert graded(adaptive(attack), view, truth, knowing)[0] == static


def test_frozen_tables_are_refused_though_the_defense_is_public():
    view, _, knowing = frozen("tokens", "head", rows=torch.arange(2))
    (answer,) = attack_view(view, [adaptive(TOKEN_ROWS)], knowing, seed=0)
    assert answer.refused
    assert "must move a table of tokens" in answer.reason


@pytest.mark.parametrize("attack", [TOKEN_ROWS, ROW_BAYES, POSITIONS], ids=lambda it: it.name)
def test_where_the_static_answer_is_exact_it_stays(attack):
    rows = torch.arange(1)
    static, knowing = both(attack, rows, "clip", bound=1e6)
    assert knowing == static


def test_an_update_of_noise_alone_gives_no_advantage():
    model, rows = language(), torch.arange(4)
    defense = build_defenses(parse({"defense": [{"name": "gaussian", "std": 1.0}]}).defense)
    nothing = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    delta, _ = defense.apply(nothing, {}, generator(0, "defense"))
    view, _ = seen(model, rows, delta=delta)
    knowing = replace(auxiliary_of(model), defense=defense)
    truths = [seen(model, rows + start, delta=delta)[1] for start in range(0, 96, 4)]
    for attack, metric in ((TOKEN_ROWS, "f1"), (ROW_BAYES, "asr")):
        (answer,) = attack_view(view, [adaptive(attack)], knowing, seed=0)
        grade = FAMILIES[attack.family].grade
        got, blind = (
            sum(grade(guess, truth)[metric] for truth in truths) / len(truths)
            for guess in (answer.guess, answer.blind)
        )
        assert got < blind + 0.05


def test_the_answer_is_the_same_again():
    model, rows = language(), torch.arange(2)
    defense = build_defenses(parse({"defense": ["sign"]}).defense)
    plain = gradient(model, INPUTS[rows], TARGETS[rows])
    delta, _ = defense.apply(plain, {}, generator(0, "defense"))
    knowing = replace(auxiliary_of(model), defense=defense)
    answers = [
        attack_view(seen(model, rows, delta=delta)[0], [adaptive(TOKEN_ROWS)], knowing, seed=0)
        for _ in range(2)
    ]
    assert torch.equal(answers[0][0].guess, answers[1][0].guess)
