import pytest
import torch
from torch import nn

from adversary.inversion.chain import chain
from adversary.inversion.recursive import head_gradient, linear_input, walk
from tests.adversary.inversion.inversion_cases import CLASSES, gradient, images, net, psnr, sent

ACTIVATIONS = [nn.Tanh(), nn.Sigmoid(), nn.LeakyReLU(0.2), nn.Softplus(), nn.ELU()]


def walked(model, x, label=2, **options):
    layers = chain(model, tuple(x.shape[1:]))
    seen = gradient(model, x, torch.tensor([label]), **options)
    return walk(layers, sent(model), seen, label)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_a_determined_stack_gives_its_input_exactly(activation):
    model = net(
        nn.Conv2d(2, 6, 3, bias=False), activation, nn.Conv2d(6, 8, 3, 1, 1), activation,
        nn.Flatten(), nn.Linear(8 * 64, 20), activation, nn.Linear(20, CLASSES),
    )  # fmt: skip
    x = images(1, 2, 10, 10)
    steps = walked(model, x)
    assert [step.hidden for step in steps if step.solution] == [0, 0]
    assert psnr(steps[-1].input, x[0]) > 150


def test_every_step_holds_what_the_layer_really_saw():
    model = net(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, CLASSES))
    x = images(1, 2, 8, 8)
    seen = {}
    for name, module in model.named_children():
        keep = lambda _, given, out, name=name: seen.update({name: seen.get(name, given[0])})
        module.register_forward_hook(keep)
    model(x)
    for step in walked(model, x):
        torch.testing.assert_close(step.input, seen[step.layer.name][0], rtol=0, atol=1e-7)


def test_relu_is_walked_back_through_where_it_is_active():
    model = net(
        nn.Conv2d(1, 12, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 36, 16),
        nn.ReLU(), nn.Linear(16, CLASSES),
    )  # fmt: skip
    x = images(1, 1, 8, 8)
    steps = walked(model, x)
    assert steps[-1].solution.rank == 64
    assert psnr(steps[-1].input, x[0]) > 150


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_labels_change_nothing_where_the_head_has_a_bias(smoothing):
    model = net(nn.Flatten(), nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, CLASSES))
    x = images(1, 1, 4, 4)
    assert psnr(walked(model, x, smoothing=smoothing)[-1].input, x[0]) > 250


@pytest.mark.parametrize("seed", range(6))
def test_a_head_without_bias_leaves_one_scale_which_the_softmax_settles(seed):
    model = net(nn.Flatten(), nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, CLASSES, bias=False),
                seed=seed)  # fmt: skip
    x, label = images(1, 1, 4, 4, seed=seed), seed % CLASSES
    seen = gradient(model, x, torch.tensor([label]))
    expected = model(x)[0].softmax(dim=0) - torch.eye(CLASSES)[label]
    found = head_gradient(chain(model, (1, 4, 4))[-1], sent(model), seen, label)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-9)
    assert psnr(walked(model, x, label)[-1].input, x[0]) > 150


def test_all_rows_together_stand_more_noise_than_one():
    stream = torch.Generator().manual_seed(0)
    x, out = torch.rand(40, generator=stream), torch.randn(100, generator=stream)
    noisy = torch.outer(out, x) + 1e-3 * torch.randn(100, 40, generator=stream)
    row = int(out.abs().argmax())
    assert psnr(linear_input(noisy, out), x) > psnr(noisy[row] / out[row], x) + 8


def test_no_gradient_is_one_clear_sentence():
    with pytest.raises(ValueError, match="a gradient must reach every layer, got zero"):
        linear_input(torch.zeros(3, 4), torch.zeros(3))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.MaxPool2d(2), "1 = MaxPool2d: cannot be walked back through"),
        (nn.BatchNorm2d(3), "1 = BatchNorm2d: cannot be walked back through"),
        (nn.Conv2d(3, 3, 3, groups=3, padding=1), "1 = Conv2d: must have one group"),
        (nn.TransformerEncoderLayer(8, 2), "1 = TransformerEncoderLayer: layers must follow"),
    ],
)
def test_a_layer_that_cannot_be_walked_back_through_is_named(layer, reason):
    with pytest.raises(ValueError, match=reason):
        chain(nn.Sequential(nn.Conv2d(3, 3, 3), layer), (3, 8, 8))


def test_an_activation_without_inverse_is_named():
    model = net(nn.Flatten(), nn.Linear(16, 9), nn.SiLU(), nn.Linear(9, CLASSES))
    with pytest.raises(ValueError, match="2 = SiLU: has no inverse"):
        walked(model, images(1, 1, 4, 4))
