"""Attacks on recurrent layers and attention, which PyTorch differentiates in fewer ways."""

import pytest
import torch
from torch import nn

from adversary.attacks import ATTACKS
from adversary.games.gradients import batch_gradients
from adversary.inversion.local_steps import one_hot
from adversary.inversion.rows import Rows
from fedsim.core.examples import example_gradients
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Candidates
from tests.adversary.inversion.inversion_cases import values_of
from tests.builders import observe, plain_gradient

WORDS, WIDTH, CLASSES = 5, 4, 3
INPUTS = torch.rand(40, WORDS, WIDTH, generator=generator(0, "inputs"))
LABELS = torch.arange(40) % CLASSES


class Reading(nn.Module):
    """The body's output at the last word goes into a head."""

    def __init__(self, body, call=lambda body, x: body(x)[0]):
        super().__init__()
        self.body, self.call, self.head = body, call, nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        return self.head(self.call(self.body, x)[:, -1])


def from_zeros(body, x):
    zeros = torch.zeros(1, len(x), WIDTH)
    return body(x, (zeros, zeros))[0]


def packed(body, x):
    lengths = torch.full((len(x),), WORDS)
    sequences = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(body(sequences)[0], batch_first=True)[0]


def without_first(body, x):
    ignored = (torch.arange(WORDS) < 1).expand(len(x), WORDS)
    return body(x, src_key_padding_mask=ignored)


def encoder():
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 1)


MODELS = {
    "lstm": lambda: Reading(nn.LSTM(WIDTH, WIDTH, batch_first=True), from_zeros),
    "gru": lambda: Reading(nn.GRU(WIDTH, WIDTH, batch_first=True)),
    "packed rnn": lambda: Reading(nn.RNN(WIDTH, WIDTH, batch_first=True), packed),
    "padded transformer": lambda: Reading(encoder(), without_first),
}
ATTACKED = {
    "llg": {}, "cosine-mia": {}, "update-lira": {}, "source-inference": {},
    "dlg": {"iterations": 2, "restarts": 1},
    "inverting-gradients": {"iterations": 2, "restarts": 1},
    "joint": {"steps": 2},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::fedsim.core.errors.Remark")
@pytest.mark.parametrize("name", MODELS)
def test_attacks_answer(name):
    with global_stream(0, name):
        model = MODELS[name]().eval()
    view = observe(plain_gradient(model, INPUTS[:2], LABELS[:2]), 2, sent=model)
    auxiliary = Auxiliary(
        model,
        CLASSES,
        inputs=INPUTS[20:],
        labels=LABELS[20:],
        candidates=Candidates(INPUTS[:20], LABELS[:20]),
        input_shape=(WORDS, WIDTH),
    )
    for attack, options in ATTACKED.items():
        guess = ATTACKS[attack].infer(view, auxiliary, generator(0, "infer"), **options)
        assert values_of(guess).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_rows_have_every_parameter(name):
    with global_stream(0, name):
        model = MODELS[name]()
    rows = Rows(model, model.state_dict(), [n for n, _ in model.named_parameters()])
    targets = one_hot(LABELS[:2], CLASSES, torch.float32)
    gradients = rows.gradients(INPUTS[None, :2], targets[None])
    expected = plain_gradient(model.train(), INPUTS[:2], LABELS[:2])
    for part, value in zip(expected, gradients, strict=True):
        torch.testing.assert_close(value[0].detach(), expected[part])


@pytest.mark.parametrize("name", ["padded transformer"])
def test_every_examples_gradient_is_its_own(name):
    with global_stream(0, name):
        model = MODELS[name]()
    parameters = dict(model.named_parameters())
    each = example_gradients(model, parameters, INPUTS[:3], LABELS[:3])
    for place in range(3):
        here = slice(place, place + 1)
        expected = plain_gradient(model, INPUTS[here], LABELS[here])
        torch.testing.assert_close({name: value[place] for name, value in each.items()}, expected)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_batches_are_those_of_each_by_itself(name):
    with global_stream(0, name):
        model = MODELS[name]()
    inputs, labels = INPUTS[:6].view(3, 2, WORDS, WIDTH), LABELS[:6].view(3, 2)
    rows = batch_gradients(model, model.state_dict(), inputs, labels)
    for row, x, y in zip(rows, inputs, labels, strict=True):
        expected = plain_gradient(model, x, y)
        torch.testing.assert_close(row, torch.cat([it.flatten() for it in expected.values()]))
