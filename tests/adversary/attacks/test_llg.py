import pytest
import torch
from torch import nn

from adversary.attacks.llg import impact, impact_and_offset, llg, llg_plus, llg_star
from adversary.grading.families import FAMILIES
from adversary.labels.head import forward
from adversary.workspace import workspace
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary
from tests.adversary.label_cases import asr, hand, known, untrained
from tests.builders import auxiliary_of, bilinear, observe, plain_gradient, work_at


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


def test_worked_example_with_a_measured_impact():
    # T5, vector A: m = −4/9 and s = 2/3 a batch of four, from an auxiliary input of ones.
    view, auxiliary = hand("A")
    there = forward(workspace(view, auxiliary), view.latest.sent, torch.ones(3, 2))
    m, s = impact_and_offset(there, torch.arange(3))
    assert m / 4 * (1 + 1 / 3) == pytest.approx(-4 / 9)
    torch.testing.assert_close(s, torch.full((3,), 2 / 3).double())
    assert llg_plus(view, auxiliary, generator(0)).tolist() == [2, 1, 1]
    assert llg_star(view, auxiliary, generator(0), dummy="ones").tolist() == [2, 1, 1]


def one_batch_at_a_time(model, inputs, labels, classes):
    """The paper's measurement: m is the mean of g_c over batches of class c, s_j that of g_j."""
    g = {
        c: plain_gradient(model, inputs[labels == c], labels[labels == c])["2.weight"].sum(1)
        for c in classes
    }
    others = [[g[c][j] for c in classes if c != j] for j in range(4)]
    return float(sum(g[c][c] for c in classes)) / len(classes), [sum(o) / len(o) for o in others]


@pytest.mark.parametrize("classes", [[0, 1, 2, 3], [0, 1, 3]])
def test_impact_and_offset_are_those_of_single_class_batches(classes):
    model, stream = bilinear(4, features=9), generator(0, "llg")
    inputs, labels = torch.rand(37, 4, generator=stream), torch.arange(37) % 4
    there = torch.isin(labels, torch.tensor(classes))  # of one class nothing may be known
    inputs, labels = inputs[there], labels[there]
    auxiliary = Auxiliary(model, 4, inputs=inputs, labels=labels)
    m, s = impact_and_offset(forward(work_at(auxiliary, {}), model.state_dict(), inputs), labels)
    expected_m, expected_s = one_batch_at_a_time(model, inputs, labels, classes)
    assert m == pytest.approx(expected_m, rel=1e-5)
    assert s.tolist() == pytest.approx([float(value) for value in expected_s], rel=1e-4)


def test_each_dummy_is_labelled_with_every_class():
    model, stream = bilinear(4, features=9), generator(0, "dummies")
    model.get_parameter("2.bias").data = torch.tensor([1.0, -1.0, 2.0, 0.0])  # offsets that differ
    inputs = torch.rand(9, 4, generator=stream)
    view = observe(plain_gradient(model, inputs, torch.arange(9) % 3), 9, sent=model)
    known_to = lambda inputs: known(model, 4, inputs, each=len(inputs))
    for dummy, inputs in (("zeros", torch.zeros(1, 4)), ("ones", torch.ones(1, 4))):
        star = llg_star(view, auxiliary_of(model, 4), generator(0), dummy=dummy)
        assert torch.equal(star, llg_plus(view, known_to(inputs), generator(0)))
    noise = llg_star(view, auxiliary_of(model, 4), generator(0), dummy="noise")
    assert int(noise.sum()) == 9


@pytest.mark.parametrize("attack", [llg, llg_plus, llg_star])
def test_over_small_steps_the_offset_grows_and_the_impact_stays(attack):
    # 8 small steps of 4 at an untrained model are one batch of 32, give or take a label.
    rates = []
    for seed in range(10):
        local = {"lr": 1e-3, "batch_size": 4, "upload": "weights"}
        counts = [16, 8, 0, 5, 3]
        one = untrained(counts, nn.Sigmoid, seed=seed)
        several = untrained(counts, nn.Sigmoid, seed=seed, **local)
        guesses = [attack(*known_, generator(0)) for known_ in (one, several)]
        assert asr(*guesses) > 30 / 32
        rates.append(asr(guesses[0], torch.tensor(counts)))
    assert sum(rates) / 10 > (0.7 if attack is llg else 0.9)


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
    m = impact(gradient["weight"].double().sum(1).unsqueeze(0), torch.tensor([64]))
    assert float(m) == pytest.approx(-0.0072509765625, rel=1e-5)


@pytest.mark.parametrize(("classes", "ratio"), [(2, 0.75), (10, 0.99), (100, 0.9999)])
def test_the_papers_scale_falls_short_of_the_exact_one_by_one_in_c_squared(classes, ratio):
    g, total = torch.linspace(-1, 1, classes).double().unsqueeze(0), torch.tensor([7])
    assert float(impact(g, total) / impact(g, total, "exact")) == pytest.approx(ratio)


@pytest.mark.parametrize("size", [1, 3])
def test_more_present_classes_than_labels_never_give_more_labels(size):
    weight = -torch.arange(1.0, 7.0).unsqueeze(1).expand(6, 2)
    head = torch.nn.Linear(2, 6)
    view = observe({"weight": weight, "bias": torch.zeros(6)}, size)
    counts = llg(view, auxiliary_of(head, 6), generator(0))
    assert counts.tolist() == [0] * (6 - size) + [1] * size


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
