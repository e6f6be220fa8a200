"""What is called hidden is hidden at other weights, inputs and batches, and far from the input."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from fedsim.core.types import LocalTraining
from fedsim.explain import explain
from tests.builders import small_config

HERE = "tests.fedsim.explain.test_hidden"
SHAPE = (1, 6, 4)
ONE = LocalTraining(lr=0.1, batch_size=1, upload="gradient")


def verdict_of(name, shape=SHAPE):
    return explain(small_config(model=f"{HERE}:{name}"), shape, 4, ONE).verdict


class Calling(nn.Module):
    """Calls a function of itself and the flat input."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.call = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.call(self, x.flatten(1))


def flat(*layers):
    return nn.Sequential(nn.Flatten(), *layers)


def head(width=24, classes=4):
    return nn.Linear(width, classes, bias=False)


def zero_head(input_shape, num_classes):
    """Nothing comes back through a head of zeros: in round 1 alone."""
    model = flat(nn.Linear(24, 12, bias=False), nn.Tanh(), head(12))
    nn.init.zeros_(model[-1].weight)
    return model


class LowRank(nn.Module):
    """A frozen linear layer beside two small ones, of which the second begins as 0."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(24, 6, bias=False).requires_grad_(requires_grad=False)
        self.down, self.up = head(24, 3), head(3, 6)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.frozen(x) + self.up(self.down(x))


def low_rank(input_shape, num_classes):
    return flat(LowRank(), nn.Tanh(), nn.Linear(6, 4))


def zero_norm(input_shape, num_classes):
    model = flat(nn.Linear(24, 8, bias=False), nn.LayerNorm(8), nn.Linear(8, 4))
    nn.init.zeros_(model[2].weight)
    return model


@pytest.mark.parametrize("name", ["zero_head", "low_rank", "zero_norm"])
def test_weights_that_hide_in_the_first_round_alone_do_not(name):
    verdict = verdict_of(name)
    assert verdict.kind == "jointly"
    assert any("at the initial weights" in reason for reason in verdict.reasons)


def negative(input_shape, num_classes):
    return Calling(lambda m, x: m.head(torch.relu(-x)), head=head())


def beyond(input_shape, num_classes):
    return Calling(lambda m, x: m.head(torch.relu(x - 2)), head=head())


def dead(input_shape, num_classes):
    model = flat(nn.Linear(24, 9), nn.ReLU(), nn.Linear(9, 4))
    nn.init.constant_(model[1].bias, -3)
    return Calling(lambda m, x: m.body(x), body=model)


@pytest.mark.parametrize("name", ["negative", "beyond", "dead"])
def test_units_that_are_off_for_all_pixels_do_not_hide_what_tables_may_hold(name):
    verdict = verdict_of(name)
    assert verdict.kind == "open"
    assert any("at other inputs" in reason for reason in verdict.reasons)


def rounded(input_shape, num_classes):
    """The sums are exact, the differences in steps of a hundredth."""

    def forward(model, x):
        left, right = x.chunk(2, dim=1)
        steps = torch.floor(100 * (left - right)) / 100
        return model.head(torch.cat([left + right, steps], dim=1))

    return Calling(forward, head=head())


def faint(input_shape, num_classes):
    """The differences are detached, and ten million times smaller than the sums."""

    def forward(model, x):
        left, right = x.chunk(2, dim=1)
        return model.head(torch.cat([left + right, 1e-7 * (left - right).detach()], dim=1))

    return Calling(forward, head=head())


@pytest.mark.parametrize("name", ["rounded", "faint"])
def test_directions_that_only_show_further_away_are_not_called_hidden(name):
    verdict = verdict_of(name)
    assert verdict.kind == "open"
    assert any("another input of the same gradient" in reason for reason in verdict.reasons)


def centred(input_shape, num_classes):
    """Of one example nothing is left."""
    return Calling(lambda m, x: m.head(torch.tanh(x - x.mean(dim=0))), head=head())


def across(input_shape, num_classes):
    return flat(nn.Linear(24, 4, bias=False), nn.BatchNorm1d(4, track_running_stats=False))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("centred", "not looked at: Calling, which mixes the examples of a batch"),
        ("across", "not looked at: J, which cannot be computed (ValueError: Expected more than 1"),
    ],
)
def test_what_one_example_hides_need_not_be_hidden_among_several(name, reason):
    verdict = verdict_of(name)
    assert verdict.kind == "open"
    assert any(it.startswith(reason) for it in verdict.reasons)


class Rounding(torch.autograd.Function):
    """Rounds forwards, and passes slopes through."""

    @staticmethod
    def forward(ctx, x):
        return (16 * x).round() / 16

    @staticmethod
    def backward(ctx, *grad_outputs):
        return grad_outputs[0]


def straight_through(input_shape, num_classes):
    return Calling(lambda m, x: m.head(Rounding.apply(x)), head=head())


def noisy(input_shape, num_classes):
    return Calling(lambda m, x: m.head(functional.dropout(x, 0.5)), head=head())


@pytest.mark.parametrize("name", ["straight_through", "noisy"])
def test_a_gradient_that_is_not_what_its_derivative_says_is_no_proof_of_recovery(name):
    verdict = verdict_of(name)
    assert verdict.kind == "open"
    assert any("differs from its derivative" in reason for reason in verdict.reasons)


def frozen(input_shape, num_classes):
    model = flat(nn.Linear(24, 10), nn.Tanh(), nn.Linear(10, 4))
    model[1].requires_grad_(requires_grad=False)
    return model


def normed_weight(input_shape, num_classes):
    layer = parametrizations.weight_norm(nn.Linear(24, 10))
    return flat(layer, nn.Tanh(), nn.Linear(10, 4))


def masked(input_shape, num_classes):
    """A weight that is computed from another one, and a mask."""
    layer = prune.l1_unstructured(nn.Linear(24, 10), "weight", 0.5)
    return flat(layer, nn.Tanh(), nn.Linear(10, 4))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("frozen", "14 of 24 directions hidden"),
        ("normed_weight", "recoverable jointly"),
        ("masked", "recoverable jointly"),
    ],
)
def test_an_input_is_not_read_off_a_weight_that_is_not_trained_as_it_is(name, text):
    verdict = verdict_of(name)
    assert verdict.text == text
    assert any("recursion stops at" in reason for reason in verdict.reasons)


def stateful(input_shape, num_classes):
    """Starts from a state of zeros in 32 bits."""

    def forward(model, x):
        zeros = torch.zeros(1, len(x), 12)
        return model.head(model.body(x.view(-1, 6, 4), (zeros, zeros))[0][:, -1])

    return Calling(forward, body=nn.LSTM(4, 12, batch_first=True), head=nn.Linear(12, 4))


def padded(input_shape, num_classes):
    """A transformer's encoder that leaves the last two words out."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0)

    def forward(model, x):
        ignored = (torch.arange(6) > 3).expand(len(x), 6)
        words = model.body(x.view(-1, 6, 4), src_key_padding_mask=ignored)
        return model.head(words[:, :4].mean(dim=1))

    return Calling(forward, body=nn.TransformerEncoder(layer, 1), head=nn.Linear(4, 4))


def weighted(input_shape, num_classes):
    """PyTorch does not differentiate the bag's slopes."""
    places = torch.arange(24)
    return Calling(
        lambda m, x: m.head(m.bag(places.expand(len(x), 24), per_sample_weights=x)),
        bag=nn.EmbeddingBag(24, 8, mode="sum"),
        head=nn.Linear(8, 4),
    )


@pytest.mark.parametrize(
    ("name", "kind"), [("stateful", "jointly"), ("padded", "hidden"), ("weighted", "open")]
)
def test_models_that_do_not_run_in_float64_on_the_fast_path_or_twice_have_a_verdict(name, kind):
    assert verdict_of(name).kind == kind
