"""Models of transformers, named as users name them: logits, pads, tied heads, adapters, runs."""

import pytest
import torch
from torch.nn import functional

from adversary.inversion.chain import drops_out
from fedsim import api, models
from fedsim.config import Lora, Model, parse
from fedsim.core.examples import example_gradients
from fedsim.core.form import IGNORED, Form
from fedsim.core.groups import groups_in
from fedsim.federation.progress import ALONE

pytestmark = [pytest.mark.extra("transformers", "peft"), pytest.mark.usefixtures("undrawn")]
HERE = "tests.apps.transformers_models"
LANGUAGE = Form((6,), 20, torch.int64, 20, per_token=True)
CLASSES = Form((6,), 3, torch.int64, 20)
TARGETS = {"gpt2": ("c_attn",), "bert": ("query", "value"), "llama": ("q_proj", "v_proj")}
FORMS = {"gpt2": LANGUAGE, "bert": CLASSES, "llama": LANGUAGE}
each_model = pytest.mark.parametrize("name", list(TARGETS))


def build(name, *, lora=False, **options):
    adapters = Lora(rank=2, targets=TARGETS[name]) if lora else None
    return models.build(Model(name=f"{HERE}:{name}", lora=adapters, **options), FORMS[name], seed=0)


def padded(form):
    """Return five texts, two of them shorter."""
    inputs, labels = models.batch(form, 5)
    inputs[0, -2:], inputs[1, 3:] = 0, 0
    if form.per_token:
        labels = labels.masked_fill(inputs == 0, IGNORED)
    return inputs, labels


@pytest.mark.twin
@each_model
def test_pads_are_attended_by_no_other_token(name):
    model, (inputs, _) = build(name).eval(), padded(FORMS[name])
    short = inputs[1, None, :3]
    with torch.no_grad():
        whole, alone = model(inputs)[1, None], model(short)
    assert torch.allclose(whole[..., :3], alone, atol=1e-5)
    assert not torch.allclose(model(inputs)[2], model(inputs)[3], atol=1e-5)


@pytest.mark.twin
def test_an_encoders_mask_of_pairs_is_its_mask_of_tokens():
    model, (inputs, _) = build("bert").eval(), padded(CLASSES)
    with torch.no_grad():
        of_tokens = model(inputs, attention_mask=(inputs != 0).long())
        without = model(inputs, attention_mask=torch.ones_like(inputs))
        assert torch.allclose(model(inputs), of_tokens, atol=1e-6)
        assert not torch.equal(model(inputs), without)


@pytest.mark.twin
@pytest.mark.parametrize("lora", [False, True])
@each_model
def test_each_texts_gradient_is_taken_at_once(name, lora):
    model, (inputs, labels) = build(name, lora=lora), padded(FORMS[name])
    trained = {n: v for n, v in model.named_parameters() if v.requires_grad}
    assert list(model.state_dict()) == list(trained)
    if lora:
        assert all(".lora_" in key for key in trained)
    together = example_gradients(model, trained, inputs, labels)
    for place in range(len(inputs)):
        loss = functional.cross_entropy(model(inputs[place, None]), labels[place, None])
        slopes = torch.autograd.grad(
            loss, list(trained.values()), allow_unused=True, materialize_grads=True
        )
        for key, slope in zip(trained, slopes, strict=True):
            assert torch.allclose(together[key][place], slope, atol=1e-6)


@pytest.mark.worked
def test_a_tied_head_travels_once_and_is_loaded_into_both():
    model = build("gpt2")
    assert "lm_head.weight" not in model.state_dict()
    state = {key: torch.full_like(value, 0.5) for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    head, table = model.get_parameter("lm_head.weight"), state["transformer.wte.weight"]
    assert head is model.get_parameter("transformer.wte.weight")
    assert torch.equal(head, table)


@pytest.mark.worked
def test_a_fused_layer_with_a_transposed_weight_takes_an_adapter():
    model = build("gpt2", lora=True)
    sizes = {key.split(".")[-3]: tuple(of.shape) for key, of in model.state_dict().items()}
    assert sizes == {"lora_A": (2, 16), "lora_B": (48, 2)}
    inputs, _ = padded(LANGUAGE)
    plain = build("gpt2")
    plain_state = {
        key.replace(".base_layer", ""): value for key, value in models.base_of(model).items()
    }
    plain.load_state_dict(plain_state)
    with torch.no_grad():
        assert torch.allclose(model.eval()(inputs), plain.eval()(inputs), atol=1e-6)


@pytest.mark.worked
@each_model
def test_dropout_is_seen(name):
    assert not models.draws(build(name), FORMS[name])
    if name != "llama":
        dropping = build(name, dropout=0.1)
        assert models.draws(dropping, FORMS[name])
        assert any(drops_out(module) for module in dropping.modules())


@pytest.mark.untyped  # beartype draws random numbers, and so would the model
@pytest.mark.e2e
@pytest.mark.parametrize("engine", ["inline", "batched"])
def test_a_run_fine_tunes_gpt2_by_adapters(tmp_path, engine):
    config = parse(
        {
            "model": {"name": f"{HERE}:gpt2", "lora": {"rank": 2, "targets": ["c_attn"]}},
            "data": {"name": "messages", "length": 16, "limit": 60, "partition": "iid"},
            "federation": {"rounds": 1, "clients": 2},
            "local": {"batch_size": 8, "lr": 0.1},
            "engine": {"name": engine},
            "attack": [],
        }
    )
    run = api.run(config, tmp_path / "run")
    uploads = groups_in(run.path / "rounds" / "0001" / "uploads.safetensors")
    assert len(uploads) == 2
    assert all(".lora_" in name for upload in uploads.values() for name in upload)
    assert ALONE not in run.metrics()["metric"].to_pylist()
