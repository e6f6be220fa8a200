"""Transformers: sizes, what a token may look at, and which rows of the embedding a text moves."""

import pytest
import torch
from torch.nn import functional

from clients.train import train
from fedsim import models
from fedsim.config import Model
from fedsim.core.errors import ConfigError, NotApplicable
from fedsim.core.examples import example_gradients
from fedsim.core.form import IGNORED, Form
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining
from fedsim.models.together import train_together
from fedsim.models.transformer import _turned, _turns

LANGUAGE = Form((12,), 40, torch.int64, 40, per_token=True)
CLASSES = Form((12,), 3, torch.int64, 40)
SMALL = {"width": 8, "layers": 2, "heads": 2}
VARIANTS = {
    "gpt": ("gpt", {}, LANGUAGE),
    "gpt-rotary": ("gpt", {"positions": "rotary"}, LANGUAGE),
    "gpt-tied": ("gpt", {"tie": True}, LANGUAGE),
    "bert": ("bert", {}, CLASSES),
    "bert-rotary": ("bert", {"positions": "rotary"}, CLASSES),
}


def build(name):
    model, options, form = VARIANTS[name]
    return models.build(Model(name=model, **SMALL, **options), form, seed=0), form


def slopes(model, inputs, labels):
    loss = functional.cross_entropy(model(inputs), labels)
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


@pytest.mark.worked
def test_sizes_are_those_of_the_field():
    form = Form((32,), 1024, torch.int64, 1024, per_token=True)
    sizes = {}
    for name in ("gpt", "gpt-tied", "gpt-rotary"):
        model = models.build(Model(name="gpt", **VARIANTS[name][1]), form, seed=0)
        sizes[name] = sum(value.numel() for value in model.parameters())
    assert sizes == {
        "gpt": 663_040,
        "gpt-tied": 663_040 - 1024 * 128,
        "gpt-rotary": 663_040 - 32 * 128,
    }


@pytest.mark.worked
@pytest.mark.parametrize("name", VARIANTS)
def test_initial_weights_are_normal_with_a_deviation_of_two_hundredths(name):
    model, _ = build(name)
    for key, value in model.state_dict().items():
        if value.ndim == 2:
            assert float(value.std()) == pytest.approx(0.02, rel=0.4), key
        else:
            assert set(value.tolist()) == {1.0 if "norm" in key and "weight" in key else 0.0}, key


@pytest.mark.worked
@pytest.mark.parametrize("name", VARIANTS)
def test_classes_come_second_and_pads_are_looked_at_by_no_token(name):
    model, form = build(name)
    inputs, _ = models.batch(form, 3)
    inputs[0, 7:] = 0
    logits = model(inputs)
    assert logits.shape == form.logits(3)
    alone = model(inputs[:1, :7])
    longer = logits[:1, ..., :7] if form.per_token else logits[:1]
    assert torch.allclose(alone, longer, atol=1e-6)


@pytest.mark.worked
@pytest.mark.parametrize("name", ["gpt", "gpt-rotary", "gpt-tied"])
def test_no_token_sees_a_later_one(name):
    model, form = build(name)
    inputs, _ = models.batch(form, 1)
    other = inputs.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 40
    left, right = model(inputs), model(other)
    assert torch.equal(left[..., :6], right[..., :6])
    assert not torch.equal(left[..., 6:], right[..., 6:])


@pytest.mark.worked
def test_rotary_positions_count_by_their_distance_alone():
    turns = _turns(9, 4).double()
    q, k = torch.randn(2, 1, 1, 1, 4, dtype=torch.float64, generator=generator(0, "rotary"))
    turned = lambda x, place: _turned(x, turns[:, place : place + 1])
    scores = [float((turned(q, i + 3) * turned(k, i)).sum()) for i in range(6)]
    assert scores == pytest.approx([scores[0]] * 6)
    assert float((turned(q, 4) * turned(k, 0)).sum()) != pytest.approx(scores[0])


@pytest.mark.worked
@pytest.mark.parametrize("name", ["gpt", "gpt-rotary", "bert", "bert-rotary"])
@pytest.mark.parametrize(
    "local",
    [
        LocalTraining(0.1, 2, epochs=3),
        LocalTraining(0.1, 2, epochs=2, momentum=0.9),
        LocalTraining(0.1, 2, epochs=2, proximal_mu=0.1),
    ],
)
def test_only_rows_of_tokens_that_were_used_move(name, local):
    model, form = build(name)
    inputs, labels = models.batch(form, 4)
    sent = {key: value.clone() for key, value in model.state_dict().items()}
    trained, _ = train(model, sent, inputs, labels, local, generator=generator(1, "order"))
    moved = (trained["tokens.weight"] != sent["tokens.weight"]).any(dim=1)
    assert moved.nonzero()[:, 0].tolist() == sorted(set(inputs.unique().tolist()) - {0})


@pytest.mark.twin
@pytest.mark.parametrize("name", VARIANTS)
def test_the_gradient_of_a_text_is_that_of_the_mean_over_its_targets(name):
    model, form = build(name)
    inputs, labels = models.batch(form, 5)
    each = example_gradients(model, dict(model.named_parameters()), inputs, labels)
    for row in range(5):
        alone = slopes(model, inputs[row : row + 1], labels[row : row + 1])
        for key, value in alone.items():
            assert torch.allclose(each[key][row], value, atol=1e-7), key


@pytest.mark.twin
@pytest.mark.untyped  # batches of several sizes
@pytest.mark.parametrize("name", VARIANTS)
def test_clients_that_train_together_take_the_mean_over_targets(name):
    model, form = build(name)
    inputs, labels = models.batch(form, 9)
    sent = {key: value.clone() for key, value in model.state_dict().items()}
    local = LocalTraining(0.5, 4)
    parts = [torch.arange(4), torch.arange(4, 7), torch.arange(7, 9)]  # of three sizes, filled up
    together = train_together(
        model, [sent] * 3, inputs, labels, [[part] for part in parts], local, mixes=False
    )
    for part, state in zip(parts, together, strict=True):
        batches = lambda count, *_: [torch.arange(count)]
        alone, _ = train(
            model,
            sent,
            inputs[part],
            labels[part],
            local,
            generator=generator(0, "order"),
            batches=batches,
        )
        for key, value in alone.items():
            assert torch.allclose(value, state[key], atol=1e-6), key


def test_a_batch_of_trial_texts_has_targets_where_it_has_tokens():
    inputs, targets = models.batch(LANGUAGE, 20)
    assert torch.equal(inputs == 0, targets == IGNORED)
    assert len({int((row != 0).sum()) for row in inputs}) > 3
    assert int(inputs.max()) < 40
    assert bool((inputs[:, :-1].eq(0) <= inputs[:, 1:].eq(0)).all())  # on the right


def test_a_model_of_tokens_refuses_numbers_and_texts_that_are_too_long():
    model, _ = build("gpt")
    with pytest.raises(NotApplicable, match=r"inputs: must be token ids, got numbers of .*float32"):
        model(torch.rand(2, 12))
    with pytest.raises(ValueError, match="inputs: must be at most 12 tokens a text, got 13"):
        model(torch.ones(2, 13, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "options", "form", "sentence"),
    [
        ("gpt", {}, Form((1, 28, 28), 10), "inputs: must be token ids of texts, got numbers of sh"),
        ("bert", {"heads": 3}, CLASSES, "width: must be an even multiple of heads, .* heads = 3"),
        ("bert", {"layers": 0}, CLASSES, "at least one layer"),
        ("gpt", {}, CLASSES, r"logit per class .*'gpt' with shape \(2, 12, 40\)"),
        ("bert", {}, LANGUAGE, "at each of 12 tokens, which come second"),
        ("gpt", {"vocabulary": 9}, LANGUAGE, "model.vocabulary: must be a known key"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(name, options, form, sentence):
    with pytest.raises(ConfigError, match=sentence):
        models.build(Model(name=name, **{"width": 8, "heads": 2, **options}), form, seed=0)
