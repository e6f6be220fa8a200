import pytest
import torch
from torch import nn
from torch.nn import functional

from adversary.attacks import ATTACKS
from fedsim import api, models
from fedsim.core.errors import ConfigError
from fedsim.core.form import Form
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.label_cases import client
from tests.binary import OneLogit, two_blobs
from tests.builders import small_config

SHAPE = (8,)
GRADIENT = LocalTraining(lr=0.1, batch_size=64, upload="gradient")
EPOCH = LocalTraining(lr=0.1, batch_size=16)
READING = [name for name, a in ATTACKS.items() if a.family == "label" and a.reads == "head"]


def binary(name, *, classes=2, **options):
    model = small_config(model={"name": f"tests.binary:{name}", **options}).model
    return models.build(model, Form(SHAPE, classes), seed=0)


class TwoLogits(OneLogit):
    """The same model, with a row of zeros for the first class."""

    def __init__(self, one: OneLogit) -> None:
        super().__init__(SHAPE, bias=one.head.bias is not None)
        self.body = one.body
        bias = one.head.bias
        self.head = nn.Linear(one.head.in_features, 2, bias=bias is not None)
        with torch.no_grad():
            self.head.weight.copy_(torch.cat([torch.zeros_like(one.head.weight), one.head.weight]))
            if bias is not None:
                self.head.bias.copy_(torch.cat([torch.zeros_like(bias), bias]))


@pytest.mark.parametrize("name", ["OneLogit", "Flat", "Halved"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_cross_entropy_of_one_logit_is_the_binary_one(name, count):
    model, x = binary(name), torch.rand(count, *SHAPE)
    labels = torch.arange(count) % 2
    logits = model(x)
    assert logits.shape == (count, 2)
    expected = functional.binary_cross_entropy_with_logits(logits[:, 1], labels.float())
    torch.testing.assert_close(functional.cross_entropy(logits, labels), expected)


def test_one_logit_for_three_classes_is_refused():
    with pytest.raises(ConfigError, match=r"got .* with shape \(2, 1\) .* and 3 classes"):
        binary("OneLogit", classes=3)


def test_a_probability_is_no_logit():
    with pytest.raises(ConfigError, match="with a sigmoid's output; return what goes into it"):
        binary("Probability")


@pytest.mark.parametrize("local", [GRADIENT, EPOCH], ids=["gradient", "epoch"])
def test_a_binary_head_is_read_as_one_with_a_row_of_zeros(local):
    data = two_blobs(None)
    one = binary("OneLogit")
    rows = torch.cat([torch.arange(0, 80, 2), torch.arange(1, 40, 2)])
    known = {"inputs": data.test_inputs[:200], "labels": data.test_labels[:200]}
    answers = []
    for model in (one, TwoLogits(one)):
        view = client(model, data.inputs[rows], data.labels[rows], local)
        auxiliary = Auxiliary(model, 2, **known)
        each = {n: ATTACKS[n].infer(view, auxiliary, generator(0, n)) for n in READING}
        answers.append({name: guess.tolist() for name, guess in each.items()})
    if local is GRADIENT:  # after several steps the twin's first row has moved as well
        assert answers[0] == answers[1]
    assert all(sum(guess) == 60 for guess in answers[0].values())


@pytest.mark.parametrize("engine", ["inline", "batched"])
def test_labels_of_a_binary_model_leak(engine, tmp_path, undrawn):
    config = small_config(
        data={"name": "tests.binary:two_blobs", "limit": 300, "alpha": 0.2},
        model={"name": "tests.binary:Flat"}, engine={"name": engine},
        attack=["llbg", "eb-gls"], federation={"rounds": 1},
    )  # fmt: skip
    rows = api.run(config, tmp_path / "run").ledger().to_pylist()
    pooled = [r for r in rows if r["client"] and r["metric"] == "asr"]
    assert {r["outcome"] for r in pooled} == {"graded"}
    for name in ("llbg", "eb-gls"):
        values = [(r["value"], r["blind"]) for r in pooled if r["attack"] == name]
        assert sum(value - blind for value, blind in values) > 0.1 * len(values)
