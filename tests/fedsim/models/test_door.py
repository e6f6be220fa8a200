import pytest
import torch
from torch import nn

from fedsim import models
from fedsim.core.attention import plain_attention
from fedsim.core.errors import ConfigError
from fedsim.core.form import Form
from tests.builders import small_config


def odd(name, shape=(4,), **options):
    model = small_config(model={"name": f"tests.odd_models:{name}", **options}).model
    return models.build(model, Form(shape, 3), seed=0)


@pytest.mark.parametrize("kind", ["dict", "tuple", "object"])
def test_logits_are_taken_out_of_what_a_model_returns(kind):
    plain, wrapped = odd("Plain"), odd("Returning", kind=kind)
    x = torch.rand(5, 4)
    assert torch.equal(plain(x), wrapped(x))


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("Returning", {"kind": "loss"}, "must give a logit per class .* got .* with dict"),
        ("Returning", {"kind": "none"}, "must give a logit per class .* got .* with NoneType"),
        ("TakesDict", {}, r"must take inputs .* got IndexError: .*odd_models.py:\d+\)"),
        ("Raising", {}, r"must take inputs .* got SystemExit: 3 \(tests/odd_models.py:\d+\)"),
        ("Complex", {}, "must hold dense real tensors on the CPU .* phase of torch.complex64"),
        ("Frozen", {}, "must have a trainable parameter .* with none that is trainable"),
        ("FrozenWitness", {}, "must leave frozen parameters as they are .* other values of seen"),
        ("Growing", {}, "must keep the names and shapes .* with unknown late.bias, late.weight"),
        ("Aliased", {}, "must hold in its state what is loaded .* with another left than"),
        ("Alone", {}, "must allow copy.deepcopy, .* with body.weight shared with the copy"),
        ("Named", {"buffer": "__metadata__"}, "must have names .* with '__metadata__'"),
        ("Setting", {"setting": "dtype"}, "must leave torch's settings .* dtype torch.float64"),
        ("Setting", {"setting": "gradients"}, "must leave torch's settings .* gradients False"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(name, options, sentence):
    with pytest.raises(ConfigError, match=f"model.name: {sentence}") as refusal:
        odd(name, **options)
    assert "\n" not in str(refusal.value)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_a_model_never_sees_the_data_themselves():
    x = torch.rand(3, 4)
    before = x.clone()
    odd("Writer")(x)
    assert torch.equal(x, before)


def test_logits_of_one_example_may_come_without_a_batch():
    assert odd("Squeezed")(torch.rand(1, 4)).shape == (1, 3)


@pytest.mark.parametrize(("train", "refused"), [({8, 1}, True), ({8, 2}, False)])
def test_sizes_of_batches_are_tried(train, refused):
    model, form = odd("Normed"), Form((4,), 3)
    if not refused:
        models.check_sizes(model, form, train, {1, 60})
        return
    with pytest.raises(ConfigError, match="local.batch_size: .* got a batch of 1 while training"):
        models.check_sizes(model, form, train, {60})


def test_a_model_that_ends_the_process_at_a_size_is_refused():
    sentence = r"local.batch_size: .* a batch of 8 while training \(SystemExit: 0 \(tests/odd"
    with pytest.raises(ConfigError, match=sentence):
        models.check_sizes(odd("EndsLate"), Form((4,), 3), {8}, {2})


def test_attention_is_differentiated_twice_and_forwards():
    model, x = odd("Attending", shape=(5,)), torch.rand(2, 5, requires_grad=True)
    with plain_attention():
        loss = nn.functional.cross_entropy(model(x), torch.tensor([0, 1]))
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    (second,) = torch.autograd.grad(sum(slope.square().sum() for slope in slopes), x)
    assert second.abs().sum() > 0
    assert torch.backends.mha.get_fastpath_enabled()
