"""Whole attacks, on fedsim's own models with random weights and random texts."""

import math
import warnings
from dataclasses import replace

import pytest
import torch

from adversary.attacks import row_bayes
from adversary.attacks.positions import ATTACK as POSITIONS
from adversary.attacks.row_bayes import ATTACK as ROW_BAYES
from adversary.attacks.token_rows import ATTACK as TOKEN_ROWS
from adversary.grading.answers import attack_view
from adversary.grading.families import FAMILIES
from adversary.steps import num_labels
from adversary.text.reading import token_set
from adversary.workspace import workspace
from defenses import build as build_defenses
from fedsim import models
from fedsim.config import parse
from fedsim.core.form import Form
from fedsim.core.ground_truth import Texts, Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.core.vocabulary import Vocabulary
from tests.adversary.text.small import BOS, EOS, PAD, sgd, texts, trained
from tests.adversary.text.small import gradient as gradient_of

SIZE, LENGTH = 256, 16
WORDS = Vocabulary(tuple(b"" if i < 3 else f" w{i}".encode() for i in range(SIZE)))


def language(**options):
    model = parse({"model": {"name": "gpt", "width": 64, **options}}).model
    return models.build(model, Form((LENGTH,), SIZE, torch.int64, SIZE, per_token=True), seed=0)


INPUTS, TARGETS = texts(400)


def auxiliary_of(model):
    return Auxiliary(
        model,
        SIZE,
        inputs=INPUTS[100:],
        labels=TARGETS[100:],
        input_shape=(LENGTH,),
        vocabulary=WORDS,
        per_token=True,
    )


def seen(model, rows, *, delta=None, local=None, count=None):
    """What the server has of a client with some texts, and the truth."""
    inputs, targets = INPUTS[rows], TARGETS[rows]
    if delta is None:
        delta = gradient_of(model, inputs, targets)
    local = local or LocalTraining(lr=0.1, batch_size=64, upload="gradient")
    update = Update(1, "0", delta, len(rows) if count is None else count)
    sent = {name: value.detach().clone() for name, value in model.state_dict().items()}
    used = Texts(
        inputs,
        WORDS,
        frozenset(INPUTS[100:].unique().tolist()),
        frozenset(f"w{i}" for i in INPUTS[100:].unique().tolist()),
    )
    labels = targets[targets >= 0].repeat(local.epochs)
    truth = Truth(labels, torch.arange(len(rows)).repeat(local.epochs), texts=used)
    return View([Observation(sent, update, local)], memory=Memory()), truth


def graded(attack, view, truth, auxiliary):
    (answer,) = attack_view(view, [attack], auxiliary, seed=0)
    assert answer.guess is not None, answer.reason
    family = FAMILIES[attack.family]
    return family.grade(answer.guess, truth), family.grade(answer.blind, truth), answer


def defended(delta, name, **options):
    defense = build_defenses(parse({"defense": [{"name": name, **options}]}).defense)
    return defense.apply(delta, defense.init(delta), generator(0, "defense"))[0]


@pytest.mark.theorem
@pytest.mark.parametrize("count", [1, 4, 16])
def test_the_set_is_exact_on_a_gradient_and_beats_the_blind_set(count):
    model = language()
    view, truth = seen(model, torch.arange(count))
    got, blind, _ = graded(TOKEN_ROWS, view, truth, auxiliary_of(model))
    assert got["f1"] == got["precision"] == got["recall"] == 1
    assert blind["f1"] < 0.8


@pytest.mark.theorem
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_local_steps_leave_the_set_and_the_order_of_one_text(momentum):
    model = language()
    local = LocalTraining(lr=0.1, batch_size=1, epochs=4, momentum=momentum)
    step = lambda *values: sgd(*values, momentum=momentum)
    delta = trained(model, INPUTS[:1], TARGETS[:1], step, steps=4, batch=1)
    view, truth = seen(model, torch.arange(1), delta=delta, local=local)
    assert graded(TOKEN_ROWS, view, truth, auxiliary_of(model))[0]["f1"] == 1
    got, blind, answer = graded(POSITIONS, view, truth, auxiliary_of(model))
    assert got["exact"] == got["rougeL"] == got["rouge2"] == got["token_f1"] == 1
    assert blind["rougeL"] < 0.5
    assert answer.remark is None


@pytest.mark.parametrize("decay", [0.0, 1e-3])
def test_a_text_that_fills_all_positions_is_read(decay):
    """Then no row of the position table shows what an untouched one looks like."""
    model, row = language(), int((INPUTS[:100] != PAD).sum(dim=1).argmax())
    rows = torch.tensor([row])
    assert bool((INPUTS[row] != PAD).all())
    step = lambda *values: sgd(*values, decay=decay)
    delta = trained(model, INPUTS[rows], TARGETS[rows], step, steps=2, batch=1)
    local = LocalTraining(lr=0.1, batch_size=1, epochs=2)
    view, truth = seen(model, rows, delta=delta, local=local)
    assert graded(POSITIONS, view, truth, auxiliary_of(model))[0]["exact"] == 1


def test_the_order_of_several_texts_is_refused_and_a_wrong_count_is_not_certified():
    model = language()
    view, _ = seen(model, torch.arange(3))
    (answer,) = attack_view(view, [POSITIONS], auxiliary_of(model), seed=0)
    assert answer.refused
    assert answer.reason == "num_examples: must be 1 text to read its order, got 3"
    view, _ = seen(model, torch.arange(3), count=1)
    (answer,) = attack_view(view, [POSITIONS], auxiliary_of(model), seed=0)
    assert answer.remark is not None
    assert answer.remark.startswith("positions: not certified")


@pytest.mark.theorem
@pytest.mark.parametrize("count", [1, 4, 16])
def test_counts_beat_the_blind_counts_though_the_number_of_targets_is_not_uploaded(count):
    model = language()
    view, truth = seen(model, torch.arange(count))
    got, blind, _ = graded(ROW_BAYES, view, truth, auxiliary_of(model))
    assert got["asr"] > 0.85
    assert got["asr"] > blind["asr"] + 0.2


def test_counts_of_several_epochs_are_of_every_use():
    model = language()
    local = LocalTraining(lr=0.05, batch_size=4, epochs=2)
    delta = trained(model, INPUTS[:4], TARGETS[:4], lambda *v: sgd(*v, lr=0.05), steps=2, batch=4)
    view, truth = seen(model, torch.arange(4), delta=delta, local=local)
    got, blind, answer = graded(ROW_BAYES, view, truth, auxiliary_of(model))
    assert bool((answer.guess % 2 == 0).all())
    assert got["asr"] > max(0.8, blind["asr"])


@pytest.mark.parametrize("scale", [1e-3, 0.05, 1e3])
def test_a_scaled_gradient_gives_nearly_the_same_counts(scale):
    model = language()
    view, truth = seen(model, torch.arange(4))
    plain = graded(ROW_BAYES, view, truth, auxiliary_of(model))[0]["asr"]
    delta = {name: scale * value for name, value in view.latest.update.delta.items()}
    view, truth = seen(model, torch.arange(4), delta=delta)
    assert graded(ROW_BAYES, view, truth, auxiliary_of(model))[0]["asr"] > plain - 0.1


@pytest.mark.theorem
@pytest.mark.parametrize("std", [0.015, 0.02])
def test_tokens_whose_rows_noise_hides_are_read_off_the_head(std):
    model = language()
    view, truth = seen(model, torch.arange(8))
    delta = defended(view.latest.update.delta, "gaussian", std=std)
    view, truth = seen(model, torch.arange(8), delta=delta)
    by_rows = token_set(view.latest, workspace(view, auxiliary_of(model))).nonzero().squeeze(1)
    got, blind, _ = graded(TOKEN_ROWS, view, truth, auxiliary_of(model))
    assert got["f1"] > FAMILIES["tokens"].grade(by_rows, truth)["f1"] + 0.3
    assert got["f1"] > blind["f1"]
    bare = replace(auxiliary_of(model), inputs=None, labels=None)
    assert TOKEN_ROWS.infer(view, bare, generator(0)).tolist() == by_rows.tolist()


@pytest.mark.parametrize("std", [1e-4, 1e-3, 1e-2, 1.0])
def test_noise_leaves_no_less_than_the_blind_counts(std):
    model = language()
    view, _ = seen(model, torch.arange(16))
    delta = defended(view.latest.update.delta, "gaussian", std=std)
    view, truth = seen(model, torch.arange(16), delta=delta)
    got, blind, _ = graded(ROW_BAYES, view, truth, auxiliary_of(model))
    assert got["asr"] > blind["asr"] - 0.1
    assert got["asr"] > 0.9 or std > 1e-3


@pytest.mark.theorem
def test_signs_alone_still_tell_most_tokens():
    model = language()
    view, _ = seen(model, torch.arange(4))
    delta = defended(view.latest.update.delta, "sign")
    view, truth = seen(model, torch.arange(4), delta=delta)
    got, blind, _ = graded(TOKEN_ROWS, view, truth, auxiliary_of(model))
    assert got["f1"] > 0.85 > blind["f1"]
    counts, blind_counts, _ = graded(ROW_BAYES, view, truth, auxiliary_of(model))
    assert counts["asr"] > blind_counts["asr"]
    alone = replace(auxiliary_of(model), inputs=None, labels=None)
    (answer,) = attack_view(view, [TOKEN_ROWS], alone, seed=0)
    assert answer.reason == "auxiliary.inputs: must hold texts for this attack, got none"


@pytest.mark.theorem
@pytest.mark.parametrize("attack", [TOKEN_ROWS, POSITIONS, ROW_BAYES], ids=lambda a: a.name)
def test_an_update_of_noise_says_nothing(attack):
    model = language()
    stream = generator(0, "noise")
    delta = {
        name: torch.randn(value.shape, generator=stream) for name, value in model.named_parameters()
    }
    view, truth = seen(model, torch.arange(1 if attack is POSITIONS else 16), delta=delta)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (answer,) = attack_view(view, [attack], auxiliary_of(model), seed=0)
    family = FAMILIES[attack.family]
    got, blind = (family.grade(guess, truth) for guess in (answer.guess, answer.blind))
    metric = family.metrics[0]
    assert got[metric] <= blind[metric] + 0.15


@pytest.mark.theorem
@pytest.mark.parametrize("attack", [TOKEN_ROWS, ROW_BAYES], ids=lambda a: a.name)
def test_the_order_of_texts_and_the_data_after_the_upload_do_not_count(attack):
    model = language()
    view, truth = seen(model, torch.arange(5))
    first = graded(attack, view, truth, auxiliary_of(model))[2].guess
    view, truth = seen(model, torch.tensor([4, 2, 0, 1, 3]))
    assert torch.equal(graded(attack, view, truth, auxiliary_of(model))[2].guess, first)


@pytest.mark.parametrize("attack", [TOKEN_ROWS, ROW_BAYES], ids=lambda a: a.name)
def test_a_tied_head_and_frozen_tables_are_refused_in_one_sentence(attack):
    model = language(tie=True)
    view, _ = seen(model, torch.arange(2))
    (answer,) = attack_view(view, [attack], auxiliary_of(model), seed=0)
    assert answer.refused
    assert answer.reason.startswith("model: must have a head of its own")
    model = language()
    view, _ = seen(model, torch.arange(2))
    table = {"tokens": "tokens.weight", "label": "head.weight"}[attack.family]
    delta = {name: v for name, v in view.latest.update.delta.items() if name != table}
    view, _ = seen(model, torch.arange(2), delta=delta)
    (answer,) = attack_view(view, [attack], auxiliary_of(model), seed=0)
    assert answer.refused
    assert "was frozen" in answer.reason


def test_a_frozen_embedding_leaves_the_counts():
    model = language()
    view, _ = seen(model, torch.arange(4))
    delta = {n: v for n, v in view.latest.update.delta.items() if n != "tokens.weight"}
    zeros = {"tokens.weight": torch.zeros_like(model.tokens.weight)}  # `freeze`
    for frozen in (delta, zeros | delta):
        view, truth = seen(model, torch.arange(4), delta=frozen)
        assert graded(ROW_BAYES, view, truth, auxiliary_of(model))[0]["asr"] > 0.8
        (answer,) = attack_view(view, [TOKEN_ROWS], auxiliary_of(model), seed=0)
        assert answer.refused


def test_a_classifier_of_texts_gives_away_its_tokens_and_one_text():
    options = parse({"model": {"name": "bert", "width": 64}}).model
    model = models.build(options, Form((LENGTH,), 3, torch.int64, SIZE), seed=0)
    auxiliary = replace(
        auxiliary_of(model), num_classes=3, labels=torch.arange(300) % 3, per_token=False
    )
    delta = gradient_of(model, INPUTS[:1], torch.tensor([2]))
    view, truth = seen(model, torch.arange(1), delta=delta)
    assert graded(TOKEN_ROWS, view, truth, auxiliary)[0]["f1"] == 1
    assert graded(POSITIONS, view, truth, auxiliary)[0]["exact"] == 1
    assert num_labels(view.latest) == 1
    assert not math.isnan(graded(TOKEN_ROWS, view, truth, auxiliary)[1]["f1"])
    assert {PAD, BOS, EOS}.isdisjoint(graded(TOKEN_ROWS, view, truth, auxiliary)[2].guess.tolist())


@pytest.mark.worked
def test_counts_behind_noise_are_computed_once_for_both_attacks(monkeypatch):
    model, counted = language(), []
    view, _ = seen(model, torch.arange(8))
    noisy = defended(view.latest.update.delta, "gaussian", std=0.02)
    view, _ = seen(model, torch.arange(8), delta=noisy)
    evidence = row_bayes.evidence
    monkeypatch.setattr(row_bayes, "evidence", lambda *a: counted.append(a) or evidence(*a))
    answers = attack_view(view, [TOKEN_ROWS, ROW_BAYES], auxiliary_of(model), seed=0)
    assert [answer.reason for answer in answers] == [None, None]
    assert len(counted) == 1
