"""LoRA: what trains, what travels, and what the adapters' gradients are made of."""

import pytest
import torch
from torch.nn import functional

from clients.train import train
from fedsim import models
from fedsim.config import Lora, Model, parse
from fedsim.core.errors import ConfigError
from fedsim.core.examples import example_gradients
from fedsim.core.form import IGNORED, Form
from fedsim.core.rng import generator
from fedsim.core.sgd import shuffled
from fedsim.core.types import LocalTraining
from fedsim.models import lora as loras
from fedsim.models.together import train_together

FORM = Form((12,), 4)
A, B = "1.lora_A.default.weight", "1.lora_B.default.weight"
needs_peft = pytest.mark.extra("peft")


def build(*, name="mlp", form=FORM, seed=0, options=None, **lora):
    settings = {"rank": 2, "alpha": 6.0, "targets": ("1",), **lora}
    return models.build(
        Model(name=name, lora=Lora(**settings), **(options or {"hidden": 10})), form, seed=seed
    )


def examples(count=8, seed=1):
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(count, 12, generator=stream), torch.arange(count) % 4


def trained_on(model, local, inputs, labels):
    """Return what a client uploads, minus what it was sent where it uploads weights."""
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    upload, _ = train(model, sent, inputs, labels, local, generator=generator(0, "order"))
    kept = local.upload == "gradient"
    return {n: value if kept else value - sent[n] for n, value in upload.items()}


def outside(delta, inputs):
    """Return the share of ΔA's norm that lies outside the span of a layer's inputs."""
    _, sizes, right = torch.linalg.svd(inputs.double(), full_matrices=False)
    basis = right[sizes > sizes[0] * 1e-9]
    rows = delta.double()
    return float((rows - rows @ basis.T @ basis).norm() / rows.norm())


@needs_peft
@pytest.mark.worked
def test_adapters_and_the_head_travel_and_the_model_is_as_before():
    plain = models.build(Model(name="mlp", hidden=10), FORM, seed=3)
    model = build(train=["head"], seed=3)
    assert list(model.state_dict()) == [A, B, "head.weight", "head.bias"]
    assert list(models.base_of(model)) == ["1.base_layer.weight", "1.base_layer.bias"]
    assert list(build().state_dict()) == [A, B]
    inputs, _ = examples()
    model.load_state_dict({**model.state_dict(), "head.weight": plain.get_parameter("head.weight")})
    twin = dict(plain.named_parameters())
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name in ("head.bias", "1.base_layer.weight", "1.base_layer.bias"):
                value.copy_(twin[name.replace("base_layer.", "")])
    assert torch.equal(model(inputs), plain(inputs))


@needs_peft
@pytest.mark.worked
def test_the_update_of_a_layer_is_alpha_over_rank_times_the_product():
    model = build()
    inputs, _ = examples()
    layer = model.get_submodule("1")
    with torch.no_grad():
        model.get_parameter(B).copy_(torch.ones(10, 2))
        product = model.get_parameter(B) @ model.get_parameter(A)
        expected = layer.base_layer(inputs) + 6.0 / 2 * inputs @ product.T
        assert torch.allclose(layer(inputs), expected, atol=1e-6)


@needs_peft
@pytest.mark.worked
def test_the_seed_decides_the_adapters():
    first, again, other = build(), build(), build(seed=1)
    assert torch.equal(first.get_parameter(A), again.get_parameter(A))
    assert not torch.equal(first.get_parameter(A), other.get_parameter(A))
    assert not first.get_parameter(B).any()


@needs_peft
@pytest.mark.theorem
@pytest.mark.parametrize("seed", range(5))
def test_a_first_gradient_moves_b_alone(seed):
    local = LocalTraining(lr=0.5, batch_size=8, upload="gradient")
    slopes = trained_on(build(seed=seed), local, *examples(seed=seed))
    assert not slopes[A].any()
    assert slopes[B].abs().max() > 0
    once = trained_on(build(seed=seed), LocalTraining(0.5, 8), *examples(seed=seed))
    assert not once[A].any()
    twice = trained_on(build(seed=seed), LocalTraining(0.5, 8, epochs=2), *examples(seed=seed))
    assert twice[A].any()


@needs_peft
@pytest.mark.theorem
@pytest.mark.parametrize("seed", range(5))
def test_a_moves_in_the_span_of_its_inputs_alone(seed):
    inputs, labels = examples(4, seed)
    local = LocalTraining(lr=0.5, batch_size=2, epochs=10, momentum=0.9)
    moved = trained_on(build(seed=seed), local, inputs, labels)[A]
    assert outside(moved, inputs) < 1e-5
    assert outside(torch.randn(moved.shape, generator=generator(seed, "rows")), inputs) > 0.4


@needs_peft
@pytest.mark.theorem
@pytest.mark.parametrize("seed", range(5))
def test_adam_leaves_the_span(seed):
    model, (inputs, labels) = build(seed=seed), examples(4, seed)
    before = model.get_parameter(A).detach().clone()
    weights = [value for value in model.parameters() if value.requires_grad]
    means, squares = ([torch.zeros_like(it) for it in weights] for _ in range(2))
    for number in range(1, 11):
        loss = functional.cross_entropy(model(inputs), labels)
        slopes = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for w, m, v, slope in zip(weights, means, squares, slopes, strict=True):
                m.mul_(0.9).add_(slope, alpha=0.1)
                v.mul_(0.999).add_(slope**2, alpha=0.001)
                scale = (v / (1 - 0.999**number)).sqrt() + 1e-8
                w -= 0.01 * m / (1 - 0.9**number) / scale
    assert outside(model.get_parameter(A).detach() - before, inputs) > 0.2


@needs_peft
@pytest.mark.twin
@pytest.mark.parametrize("train", [(), ("head",)])
def test_each_examples_gradient_goes_through_the_adapters(train):
    model, (inputs, labels) = build(train=train), examples()
    with torch.no_grad():
        model.get_parameter(B).add_(0.1)
    trained = {n: v for n, v in model.named_parameters() if v.requires_grad}
    each = example_gradients(model, trained, inputs, labels)
    for place in range(len(inputs)):
        loss = functional.cross_entropy(model(inputs[place, None]), labels[place, None])
        slopes = torch.autograd.grad(loss, list(trained.values()))
        for name, slope in zip(trained, slopes, strict=True):
            assert torch.allclose(each[name][place], slope, atol=1e-6)


@needs_peft
@pytest.mark.twin
@pytest.mark.parametrize(
    ("name", "form", "targets"),
    [
        ("mlp", FORM, ("1", "head")),
        ("gpt", Form((6,), 20, torch.int64, 20, per_token=True), ("query", "value")),
        ("bert", Form((6,), 3, torch.int64, 20), ("query", "value", "tokens")),
    ],
)
def test_clients_train_together_as_one_by_one(name, form, targets):
    options = {"width": 8, "layers": 1, "heads": 2} if form.vocabulary else None
    model = build(name=name, form=form, targets=targets, options=options)
    inputs, labels = models.batch(form, 10)
    if form.per_token:
        labels[0, -2:] = IGNORED
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    local = LocalTraining(lr=0.5, batch_size=3, epochs=2, momentum=0.5)
    parts = torch.arange(10).split([4, 6])
    steps = [shuffled(len(part), local, generator(0, place)) for place, part in enumerate(parts)]
    rows = [[part[batch] for batch in each] for part, each in zip(parts, steps, strict=True)]
    together = train_together(model, [sent, sent], inputs, labels, rows, local, mixes=False)
    for place, part in enumerate(parts):
        alone, _ = train(
            model, sent, inputs[part], labels[part], local, generator=generator(0, place)
        )
        assert alone.keys() == together[place].keys() == sent.keys()
        for key, value in alone.items():
            assert torch.allclose(value, together[place][key], atol=1e-5)


@needs_peft
@pytest.mark.worked
@pytest.mark.parametrize(
    ("lora", "sentence"),
    [
        ({"targets": ("q",)}, r"targets: must be layers of the model \(1, head\), got 'q'"),
        ({"targets": ("1", "ead")}, r"targets: must be .*, got 'ead'"),
        ({"train": ("tail",)}, r"train: must be layers of the model \(0, 1, 2, head\), got 'tail'"),
    ],
)
def test_names_that_match_no_layer_are_refused_with_those_that_exist(lora, sentence):
    with pytest.raises(ConfigError, match=f"model.lora.{sentence}"):
        build(**lora)


@pytest.mark.worked
@pytest.mark.parametrize(
    ("lora", "sentence"),
    [
        ({}, "targets: must be given"),
        ({"targets": []}, "targets: .* at least 1"),
        ({"targets": ["1"], "rank": 0}, "rank: .* greater than or equal to 1"),
        ({"targets": ["1"], "alpha": 0}, "alpha: .* greater than 0"),
        ({"targets": ["1"], "dropout": 1.0}, "dropout: .* less than 1"),
        ({"targets": ["1"], "r": 8}, "r: must be a known key"),
    ],
)
def test_settings_out_of_range_are_refused(lora, sentence):
    with pytest.raises(ConfigError, match=f"model.lora.{sentence}"):
        parse({"model": {"name": "mlp", "lora": lora}})


@pytest.mark.worked
def test_without_peft_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(loras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"model\.lora: needs peft, .* install fedsim\[text\]"):
        build()


@needs_peft
@pytest.mark.worked
def test_dropout_of_adapters_is_found():
    assert models.draws(build(dropout=0.1), FORM)
    assert not models.draws(build(), FORM)
