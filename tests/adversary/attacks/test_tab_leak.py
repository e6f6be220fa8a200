"""Records of a small table from one gradient, from weights, and what is refused."""

import pytest
import torch
from torch import nn

from adversary.attacks.tab_leak import MARGIN, tab_leak
from clients.train import train
from fedsim.core.errors import NotApplicable
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.schema import Column, schema_of
from fedsim.core.types import Auxiliary, Estimate, LocalTraining
from tests.builders import observe, plain_gradient

SCHEMA = schema_of(
    (
        Column("age", (0,), mean=40.0, deviation=10.0, whole=True),
        Column("pressure", (1,)),
        Column("colour", (2, 3, 4), ("red", "green", "blue"), torch.eye(3)),
        Column("ill", (5,), ("no", "yes"), torch.tensor([[0.0], [1.0]])),
    ),
    6,
)


def people(count, name="people"):
    stream = generator(0, name)
    numbers = torch.randn(count, 2, generator=stream).mul(10).round() / 10
    colour, ill = (torch.randint(n, (count,), generator=stream) for n in (3, 2))
    return torch.cat([numbers, torch.eye(3)[colour], ill.unsqueeze(1)], dim=1)


def network(*layers):
    with global_stream(0, "network"):
        return nn.Sequential(*(make() for make in layers))


WIDE = (lambda: nn.Linear(6, 40), nn.ReLU, lambda: nn.Linear(40, 2))
FEW = {"restarts": 4, "iterations": 250}


def shown(model, x, y, *, local=None, schema=SCHEMA):
    auxiliary = Auxiliary(
        model,
        2,
        inputs=people(100, "auxiliary"),
        labels=torch.arange(100) % 2,
        schema=schema,
    )
    if local is None:
        return observe(plain_gradient(model, x, y), len(y), sent=model), auxiliary
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    state, _ = train(model, dict(sent), x, y, local, generator=generator(0, "train"))
    model.load_state_dict(sent)
    return observe(subtract(state, sent), len(y), sent=model, local=local), auxiliary


def wrong_cells(answer: Estimate, x) -> int:
    """Return how many cells differ in the best order of two records."""
    assert SCHEMA is not None
    ours, theirs = SCHEMA.cells(x), SCHEMA.cells(answer.values)
    orders = [theirs, theirs.flip(0)]
    return min(int(((ours - other).abs() > 0.1).sum()) for other in orders)


@pytest.mark.parametrize("labels", ["recovered", "joint"])
@pytest.mark.parametrize("doubt", ["agreement", "entropy"])
def test_two_records_come_back_whole_and_without_a_doubt(labels, doubt):
    x, y = people(2), torch.tensor([0, 1])
    view, auxiliary = shown(network(*WIDE), x, y)
    answer = tab_leak(view, auxiliary, generator(0), **FEW, labels=labels, uncertainty=doubt)
    assert answer.values.shape == answer.uncertainty.shape == (2, 6)
    assert wrong_cells(answer, x) == 0
    assert float(answer.uncertainty.mean()) < 0.5


RACED = "ignore:labels:fedsim.core.errors.Remark"  # which hypothesis of the labels was taken


@pytest.mark.filterwarnings(RACED)
@pytest.mark.parametrize("epochs", [1, 2])
def test_local_steps_are_simulated(epochs):
    x, y = people(2), torch.tensor([0, 1])
    local = LocalTraining(lr=0.1, batch_size=1, epochs=epochs)
    view, auxiliary = shown(network(*WIDE), x, y, local=local)
    assert wrong_cells(tab_leak(view, auxiliary, generator(0), **FEW), x) <= 1


@pytest.mark.filterwarnings(RACED)
def test_answers_are_records_within_a_margin_of_the_range_of_auxiliary_ones():
    assert SCHEMA is not None
    noise = {n: torch.randn_like(v) for n, v in network(*WIDE).state_dict().items()}
    view, auxiliary = shown(network(*WIDE), people(3), torch.tensor([0, 1, 1]))
    view = observe(noise, 3, sent=auxiliary.model)
    answer = tab_leak(view, auxiliary, generator(0), restarts=3, iterations=20)
    assert auxiliary.inputs is not None
    low, high = auxiliary.inputs.amin(dim=0), auxiliary.inputs.amax(dim=0)
    beyond = MARGIN * (high - low)
    low, high = low - beyond, high + beyond
    exact = SCHEMA.rounded(answer.values, low, high).float()
    assert torch.allclose(answer.values, exact, atol=1e-6)
    assert bool(((answer.uncertainty >= 0) & (answer.uncertainty <= 1)).all())
    alone = tab_leak(view, Auxiliary(auxiliary.model, 2, schema=SCHEMA, input_shape=(6,)),
                     generator(0), restarts=1, iterations=5)  # fmt: skip
    assert float(alone.values[:, 1].abs().max()) <= 3.0


class Signs(nn.Module):
    def forward(self, x):
        return x.sign()


@pytest.mark.parametrize(
    ("layers", "schema", "options", "sentence"),
    [
        (WIDE, None, {}, "^columns: must be declared for each of 6 inputs, got none"),
        (WIDE, schema_of([Column("age", (0,))], 1), {}, "got those of 1 inputs"),
        (WIDE, SCHEMA, {"sharpness": -1.0}, "^sharpness: must be at least 0, got -1"),
        (WIDE, SCHEMA, {"restarts": 0}, "^restarts: must be at least 1, got 0"),
        ((WIDE[0], Signs, WIDE[2]), SCHEMA, {}, "^model: must have a gradient that can be diff"),
    ],
)
def test_what_cannot_be_attacked_is_one_sentence(layers, schema, options, sentence):
    view, auxiliary = shown(network(*layers), people(2), torch.tensor([0, 1]), schema=schema)
    with pytest.raises(NotApplicable, match=sentence) as refused:
        tab_leak(view, auxiliary, generator(0), **{"iterations": 2, **options})
    assert "\n" not in str(refused.value)


def test_batch_norm_over_records_is_simulated():
    model = network(WIDE[0], lambda: nn.BatchNorm1d(40), nn.ReLU, WIDE[2])
    view, auxiliary = shown(model.train(), people(2), torch.tensor([0, 1]))
    answer = tab_leak(view, auxiliary, generator(0), restarts=2, iterations=20)
    assert answer.values.shape == (2, 6)
