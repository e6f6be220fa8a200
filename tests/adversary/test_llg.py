import pytest
import torch

from adversary.attacks.llg import impact, llg
from adversary.families import FAMILIES
from clients.train import train
from fedsim.rng import generator
from fedsim.types import LocalTraining, Observation, Truth, Update, View
from tests.builders import auxiliary_of, bilinear, observe, plain_gradient


def head_of(features, labels, num_classes):
    """Return the gradient of a zero head on given features, and its model."""
    head = torch.nn.Linear(features.shape[1], num_classes)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    return head, plain_gradient(head, features, labels)


def test_worked_example():
    # papers/label.md T5, vector A: g = (−1/3, 1/6, 1/6) and m = −1/9: all four on class 0.
    labels = torch.tensor([0, 0, 1, 2])
    head, gradient = head_of(torch.ones(4, 2), labels, 3)
    torch.testing.assert_close(gradient["weight"].sum(1), torch.tensor([-1 / 3, 1 / 6, 1 / 6]))
    counts = llg(observe(gradient, 4), auxiliary_of(head, 3), generator(0))
    assert counts.tolist() == [4, 0, 0]
    # A batch of one class is counted right, at any size.
    head, gradient = head_of(torch.ones(7, 2), torch.full((7,), 1), 3)
    assert llg(observe(gradient, 7), auxiliary_of(head, 3), generator(0)).tolist() == [0, 7, 0]


def test_features_that_cancel_say_nothing():
    # T5, vector B: the row sums are zero; the labels are spread evenly.
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
    head, gradient = head_of(features, torch.tensor([0, 0, 1, 2]), 3)
    assert gradient["weight"].sum(1).abs().max() < 1e-7
    # In floating point "zero" has a sign; the exact vector has none.
    gradient["weight"] = (gradient["weight"] * 12).round() / 12
    assert llg(observe(gradient, 4), auxiliary_of(head, 3), generator(0)).tolist() == [2, 1, 1]


def test_the_impact_is_the_distance_from_balance():
    # T6: m = −(Ō/B)(1 + 1/C)·TV(n/B, uniform) for a uniform head and constant features.
    labels = torch.arange(10).repeat_interleave(7)[:64]
    _, gradient = head_of(torch.ones(64, 5), labels, 10)
    m = impact(gradient["weight"].double().sum(1), 64)
    assert m == pytest.approx(-0.0072509765625, rel=1e-5)


@pytest.mark.parametrize(("classes", "ratio"), [(2, 0.75), (10, 0.99), (100, 0.9999)])
def test_the_papers_scale_falls_short_of_the_exact_one_by_one_in_c_squared(classes, ratio):
    g = torch.linspace(-1, 1, classes)
    assert impact(g, 7) / impact(g, 7, "exact") == pytest.approx(ratio)


@pytest.mark.parametrize("size", [1, 3])
def test_more_present_classes_than_labels_never_give_more_labels(size):
    weight = -torch.arange(1.0, 7.0).unsqueeze(1).expand(6, 2)
    head = torch.nn.Linear(2, 6)
    view = observe({"weight": weight, "bias": torch.zeros(6)}, size)
    counts = llg(view, auxiliary_of(head, 6), generator(0))
    assert counts.tolist() == [0] * (6 - size) + [1] * size


@pytest.mark.parametrize("upload", ["weights", "gradient"])
def test_scale_and_sign_of_the_upload_do_not_matter(upload):
    model = bilinear(3)
    inputs, labels = torch.rand(9, 4), torch.tensor([0, 0, 0, 0, 0, 2, 2, 2, 1])
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    local = LocalTraining(lr=0.5, batch_size=9, upload=upload)
    state, _ = train(model, sent, inputs, labels, local, generator=generator(0))
    delta = state if upload == "gradient" else {n: state[n] - sent[n] for n in state}
    view = View([Observation(sent, Update(1, "0", delta, 9), local)])
    plain = observe(plain_gradient_at(sent, inputs, labels), 9)
    auxiliary = auxiliary_of(bilinear(3), 3)
    assert torch.equal(llg(view, auxiliary, generator(0)), llg(plain, auxiliary, generator(0)))


def plain_gradient_at(sent, inputs, labels):
    model = bilinear(3)
    model.load_state_dict(sent)
    return plain_gradient(model, inputs, labels)


def test_permuting_the_classes_permutes_the_answer():
    model = bilinear(5)
    gradient = plain_gradient(model, torch.rand(8, 4), torch.tensor([0, 0, 0, 0, 3, 3, 1, 4]))
    order = torch.tensor([4, 2, 0, 1, 3])
    moved = {k: v[order] if k.startswith("2.") else v for k, v in gradient.items()}
    auxiliary = auxiliary_of(model, 5)
    straight, permuted = (llg(observe(g, 8), auxiliary, generator(0)) for g in (gradient, moved))
    assert torch.equal(straight[order], permuted)


def test_it_names_most_labels_of_an_unbalanced_batch():
    grade, model = FAMILIES["label"].grade, bilinear(10, features=40)
    rates = []
    for seed in range(20):
        stream = generator(seed, "batch")
        labels = torch.cat([torch.full((8,), seed % 10), torch.randint(10, (8,), generator=stream)])
        gradient = plain_gradient(model, torch.rand(16, 4, generator=stream), labels)
        guess = llg(observe(gradient, 16), auxiliary_of(model, 10), generator(0))
        rates.append(grade(guess, Truth(labels, labels))["asr"])
    assert sum(rates) / 20 > 0.65


def test_what_cannot_be_attacked_is_said():
    view = observe({"weight": torch.full((3, 2), torch.nan), "bias": torch.zeros(3)}, 4)
    with pytest.raises(ValueError, match="must be finite"):
        llg(view, auxiliary_of(torch.nn.Linear(2, 3), 3), generator(0))
    with pytest.raises(ValueError, match="must end in a linear layer of 9 outputs"):
        llg(view, auxiliary_of(torch.nn.Linear(2, 3), 9), generator(0))
