"""The Jacobian's spectrum against the naive one, and what noise and rounding cost."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from adversary.inversion.chain import chain
from adversary.inversion.identifiability import systems
from adversary.inversion.jacobian import spectrum
from adversary.inversion.precision import errors, gradients, levels, rounding, signal_to_noise
from fedsim.core.attention import plain_attention
from fedsim.core.rng import generator, global_stream


def small(*layers, shape=(2, 6, 6), seed=0, classes=5):
    """A network of float32 numbers in float64, in evaluation mode."""
    with global_stream(seed, "small"):
        body = [make() for make in layers]
        flat = nn.Sequential(*body, nn.Flatten())(torch.zeros(1, *shape)).shape[1]
        model = nn.Sequential(*body, nn.Flatten(), nn.Linear(flat, classes))
    return model.double().eval()


def at(shape=(2, 6, 6), seed=0):
    return torch.rand(shape, generator=generator(seed, "at"), dtype=torch.float64)


def jacobian(model, x, label):
    """d(gradient)/d(input), column by column, of the gradient as a whole."""
    x = x.clone().requires_grad_()
    with plain_attention():
        loss = functional.cross_entropy(model(x[None]), torch.tensor([label]))
    parts = torch.autograd.grad(loss, list(model.parameters()), create_graph=True,
                                allow_unused=True, materialize_grads=True)  # fmt: skip
    flat = torch.cat([part.flatten() for part in parts])
    weights = torch.zeros_like(flat, requires_grad=True)
    (pulled,) = torch.autograd.grad(flat, x, weights, create_graph=True)
    columns = [torch.autograd.grad(value, weights, retain_graph=True)[0]
               for value in pulled.flatten()]  # fmt: skip
    return torch.stack(columns, dim=1)


TANH = (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Tanh)
DEEP = (*TANH, lambda: nn.Conv2d(4, 3, 3, bias=False), nn.Sigmoid)
RELU = (lambda: nn.Conv2d(2, 8, 3, padding=1), lambda: nn.ReLU(inplace=True),
        lambda: nn.MaxPool2d(2), lambda: nn.GroupNorm(2, 8))  # fmt: skip
TALL = (nn.Flatten, lambda: nn.Linear(72, 7, bias=False), nn.SiLU)


@pytest.mark.parametrize("layers", [TANH, DEEP, RELU, TALL])
def test_the_spectrum_is_that_of_the_naive_jacobian(layers):
    model, x = small(*layers), at()
    before = copy.deepcopy(model.state_dict())
    matrix = jacobian(model, x, 2)
    found = spectrum(model, x, 2, generator=generator(0, "it"))
    expected = torch.linalg.svdvals(matrix)
    expected = functional.pad(expected, (0, 72 - len(expected)))
    assert found.rank == int(torch.linalg.matrix_rank(matrix, rtol=1e-7))
    assert found.probed == found.unknowns == 72
    assert not found.sketched
    kept = found.singular > 0
    torch.testing.assert_close(found.singular[kept], expected[kept], rtol=1e-4, atol=1e-9)
    assert found.condition == pytest.approx(float(expected[0] / expected[found.rank - 1]), rel=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


class Reduced(nn.Module):
    """A body whose output, or first output, is flattened into a linear head."""

    def __init__(self, body, shape, *, call=None):
        super().__init__()
        self.body, self.call = body, call or (lambda it, x: it(x))
        self.head = nn.LazyLinear(4)
        self.double()(torch.rand(1, *shape, dtype=torch.float64))

    def forward(self, x):
        out = self.call(self.body, x)
        return self.head((out[0] if isinstance(out, tuple) else out).flatten(1))


def attends(body, x):
    return body(x, x, x, need_weights=False)[0]


def packs_sequence_first(body, x):
    return body(x.transpose(0, 1))[0].transpose(0, 1)


def twice(body, x):
    return body(torch.tanh(body(x)))


def soft_ids(body, x):
    return x.softmax(dim=-1) @ body.weight


def mixes(body, x):
    return body(x, 2 * x.flip(1))


LINE, SQUARE, CUBE, WORDS = (3, 8), (2, 5, 5), (1, 3, 3, 3), (3, 4)
LAYERS = {
    "conv1d same": (lambda: nn.Conv1d(3, 4, 3, padding="same"), LINE, None),
    "conv1d dilated": (lambda: nn.Conv1d(3, 4, 3, dilation=2, stride=2, bias=False), LINE, None),
    "conv1d circular": (lambda: nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular"), LINE, None),
    "conv2d same": (lambda: nn.Conv2d(2, 3, 3, padding="same", dilation=2), SQUARE, None),
    "conv2d uneven": (lambda: nn.Conv2d(2, 3, 2, padding="same"), SQUARE, None),
    "conv2d grouped": (lambda: nn.Conv2d(2, 4, 3, groups=2), SQUARE, None),
    "conv2d reflected": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), SQUARE,
                         None),
    "conv3d": (lambda: nn.Conv3d(1, 3, 2), CUBE, None),
    "transposed 1d": (lambda: nn.ConvTranspose1d(3, 2, 3, stride=2), LINE, None),
    "transposed 2d": (lambda: nn.ConvTranspose2d(2, 2, 2, groups=2), SQUARE, None),
    "transposed 3d": (lambda: nn.ConvTranspose3d(1, 2, 2), CUBE, None),
    "rnn": (lambda: nn.RNN(4, 3, batch_first=True), WORDS, None),
    "lstm": (lambda: nn.LSTM(4, 3, batch_first=True, bidirectional=True), WORDS, None),
    "lstm projected": (lambda: nn.LSTM(4, 3, proj_size=2, batch_first=True), WORDS, None),
    "gru sequence first": (lambda: nn.GRU(4, 3, num_layers=2), WORDS, packs_sequence_first),
    "attention": (lambda: nn.MultiheadAttention(4, 2, batch_first=True), WORDS, attends),
    "transformer": (lambda: nn.TransformerEncoderLayer(4, 2, 5, batch_first=True), WORDS, None),
    "batch norm": (lambda: nn.BatchNorm2d(2), SQUARE, None),
    "batch norm of no statistics": (lambda: nn.BatchNorm1d(3, track_running_stats=False), LINE,
                                    None),
    "layer norm": (lambda: nn.LayerNorm(8), LINE, None),
    "rms norm": (lambda: nn.RMSNorm(8), LINE, None),
    "group norm": (lambda: nn.GroupNorm(1, 2), SQUARE, None),
    "instance norm": (lambda: nn.InstanceNorm2d(2, affine=True), SQUARE, None),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 5)), LINE, None),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Conv1d(3, 2, 3)), LINE,
                      None),
    "embedding": (lambda: nn.Embedding(4, 3), WORDS, soft_ids),
    "prelu": (lambda: nn.PReLU(3), LINE, None),
    "bilinear": (lambda: nn.Bilinear(8, 8, 2), LINE, mixes),
    "shared linear": (lambda: nn.Linear(8, 8), LINE, twice),
    "shared convolution": (lambda: nn.Conv2d(2, 2, 3, padding=1), SQUARE, twice),
    "linear on places": (lambda: nn.Linear(8, 3), LINE, None),
    "wide linear on places": (lambda: nn.Linear(8, 9), LINE, None),
    "wide linear without bias": (lambda: nn.Linear(4, 9, bias=False), (2, 4), None),
    "linear sequence first": (lambda: nn.Linear(4, 3), WORDS,
                              lambda it, x: it(x.transpose(0, 1)).transpose(0, 1)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", LAYERS)
def test_every_layers_parameters_are_in_the_spectrum(name):
    make, shape, call = LAYERS[name]
    with global_stream(0, "layer", name):
        model = Reduced(make(), shape, call=call).eval()
    x = at(shape)
    matrix = jacobian(model, x, 2)
    results = spectrum(model, x, 2, generator=generator(0, "it"))
    expected = torch.linalg.svdvals(matrix)
    rank = int(torch.linalg.matrix_rank(matrix, rtol=1e-11))
    assert (results.rank, len(results.hidden)) == (rank, x.numel() - rank)
    assert results.weights == len(matrix)
    assert results.underived is None
    kept = expected > 1e-5 * expected[0]
    torch.testing.assert_close(results.singular[kept], expected[kept], rtol=1e-4, atol=0)
    lost = matrix @ results.hidden.T
    torch.testing.assert_close(lost, torch.zeros_like(lost), rtol=0, atol=1e-9)


def test_hidden_directions_are_those_of_the_only_convolution():
    model = small(lambda: nn.Conv2d(2, 2, 3, stride=2, bias=False), nn.Tanh, shape=(2, 10, 10))
    (one, _) = systems(chain(model, (2, 10, 10)))
    found = spectrum(model, at((2, 10, 10)), 0, generator=generator(0, "it"))
    assert found.rank == one.rank < 200


def test_a_random_projection_of_wide_convolutions_keeps_rank_and_scale():
    wide = (lambda: nn.Conv2d(2, 24, 3, padding=1), nn.Tanh,
            lambda: nn.Conv2d(24, 24, 3, padding=1), nn.Tanh)  # fmt: skip
    model, x = small(*wide), at()
    matrix = jacobian(model, x, 1)
    found = spectrum(model, x, 1, generator=generator(0, "it"))
    exact = torch.linalg.svdvals(matrix)
    assert found.sketched
    assert found.rank == 72
    torch.testing.assert_close(found.singular, exact, rtol=0.5, atol=0)


def test_a_random_projection_of_linear_layers_on_places_keeps_rank_and_scale(monkeypatch):
    monkeypatch.setattr("adversary.inversion.gram.ROOM", 0)
    wide = (lambda: nn.Linear(6, 60), nn.Tanh, lambda: nn.Linear(60, 60), nn.Tanh)
    model, x = small(*wide), at()
    found = spectrum(model, x, 1, generator=generator(0, "it"))
    assert found.sketched
    assert found.rank == 72
    exact = torch.linalg.svdvals(jacobian(model, x, 1))
    torch.testing.assert_close(found.singular, exact, rtol=0.5, atol=0)


def test_differences_of_gradients_are_taken_in_float64():
    model, x = small(lambda: nn.Linear(6, 30), nn.Tanh), at()
    rough = spectrum(model.float(), x.float(), 0, generator=generator(0, "it"))
    assert len(rough.hidden) == 0
    assert rough.underived is None


def test_random_directions_show_a_small_rank_and_no_more_than_their_number():
    model, x = small(*DEEP), at()
    whole = spectrum(model, x, 0, generator=generator(0, "it"))
    few = spectrum(model, x, 0, generator=generator(0, "it"), directions=20, noise=[{}])
    assert (few.rank, few.probed, few.mse) == (20, 20, ())
    again = spectrum(model, x, 0, generator=generator(0, "it"), directions=20)
    assert torch.equal(few.singular, again.singular)
    assert whole.singular[0] >= few.singular[0] > few.singular[-1] >= whole.singular[-1]


def test_in_float32_fewer_decades_are_told():
    model, x = small(*DEEP), at()
    exact = spectrum(model, x, 0, generator=generator(0, "it"))
    rough = spectrum(model.float(), x.float(), 0, generator=generator(0, "it"))
    assert (exact.hidden is not None, rough.edge) == (True, pytest.approx(10**-4.5))
    kept = rough.singular > 1e-3 * rough.singular[0]
    torch.testing.assert_close(rough.singular[kept], exact.singular[kept], rtol=1e-2, atol=0)


def test_a_model_without_weights_to_look_at_is_refused():
    with pytest.raises(ValueError, match="must have a trained parameter"):
        spectrum(nn.Flatten(), at(), 0, generator=generator(0, "it"))


def refined(model, x, label, told, noise, steps=3):
    """The weighted least-squares input from a gradient, by Gauss-Newton from the truth."""
    names = list(told)
    scale = torch.cat([torch.full((told[n].numel(),), 1 / noise[n]) for n in names]).double()
    aim = torch.cat([told[n].flatten() for n in names])
    point = x.clone()
    for _ in range(steps):
        here = torch.cat([g.flatten() for g in gradients(model, point, label).values()])
        matrix = scale[:, None] * jacobian(model, point, label)
        step = torch.linalg.lstsq(matrix, (scale * (aim - here))[:, None]).solution
        point = point + step.view(x.shape)
    return float((point - x).square().mean())


PLAIN = (lambda: nn.Conv2d(2, 6, 3, padding=1), nn.Tanh)


@pytest.mark.parametrize("noise", [1e-5, 1e-4])
def test_noise_on_the_gradient_costs_what_is_predicted(noise):
    model, x = small(*PLAIN), at()
    true = gradients(model, x, 2)
    deviation = levels({name: torch.zeros_like(v) for name, v in true.items()}, true, noise)
    found = spectrum(model, x, 2, generator=generator(0, "it"), noise=[deviation])
    stream, measured = generator(1, "noise"), []
    for _ in range(6):
        told = {n: v + noise * torch.randn(v.shape, generator=stream, dtype=v.dtype)
                for n, v in true.items()}  # fmt: skip
        measured.append(refined(model, x, 2, told, deviation))
    gap = 10 * math.log10(sum(measured) / 6 / found.mse[0])
    assert abs(gap) < 1.5  # dB


def test_without_any_signal_the_prediction_is_the_prior():
    model = small(*PLAIN)
    names = [name for name, _ in model.named_parameters()]
    seen = spectrum(model, at(), 0, generator=generator(0, "it"),
                    noise=[dict.fromkeys(names, 1e6), dict.fromkeys(names, 1e-7)])  # fmt: skip
    assert seen.mse[0] == pytest.approx(1 / 12, rel=1e-6)
    assert seen.mse[1] < 1e-6


def test_rounded_weights_cost_what_is_predicted_20_db_per_decade():
    model, x = small(*PLAIN), at()
    single, true = copy.deepcopy(model).float(), gradients(model, x, 2)
    predicted, measured = [], []
    for lr in (1e-2, 1e-3, 1e-4):
        gone = errors(single, x, 2, upload="weights", lr=lr)
        noise = levels(gone, true)
        seen = spectrum(model, x, 2, generator=generator(0, "it"), noise=[noise])
        told = {name: true[name] + gone[name] for name in true}
        predicted.append(-10 * math.log10(seen.mse[0]))
        measured.append(-10 * math.log10(refined(model, x, 2, told, noise)))
    assert predicted == pytest.approx(measured, abs=4)
    assert [a - b for a, b in pairwise(measured)] == pytest.approx([20, 20], abs=5)


def test_rounding_is_half_a_unit_in_the_last_place_over_the_step():
    model, x = small(*PLAIN), at()
    weight = dict(model.named_parameters())["0.weight"]
    for lr in (1e-2, 1e-3):
        gone = errors(model.float(), x, 2, upload="weights", lr=lr)["0.weight"]
        assert float(gone.square().mean().sqrt()) == pytest.approx(rounding(weight, lr), rel=0.25)


def test_a_step_below_rounding_loses_the_whole_gradient():
    model, x = small(*PLAIN), at()
    true = gradients(model, x, 2)
    single = copy.deepcopy(model).float()
    lost = errors(single, x, 2, upload="weights", lr=1e-12)
    kept = errors(single, x, 2, upload="gradient", lr=1e-12)
    torch.testing.assert_close(lost["0.weight"], -true["0.weight"])
    assert signal_to_noise(lost, true) == pytest.approx(0, abs=0.1)
    assert signal_to_noise(kept, true) > 100
