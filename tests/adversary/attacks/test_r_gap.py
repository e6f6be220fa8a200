import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from adversary.attacks import ATTACKS
from adversary.attacks.analytic import agreed, analytic
from adversary.attacks.joint import joint
from adversary.attacks.r_gap import hybrid, r_gap
from adversary.attacks.spear import spear
from adversary.grading.answers import attack_view
from adversary.grading.leakage import grade
from adversary.grading.reconstructions import bounds, checked, pool
from clients.train import train
from fedsim.core.errors import remarks_of_attacks
from fedsim.core.ground_truth import Lineup, Truth
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from tests.adversary.inversion.inversion_cases import (
    CLASSES,
    gradient,
    images,
    net,
    psnr,
    sent,
    values_of,
    view,
)

STEP = LocalTraining(0.1, 8, upload="weights")


def conv(*, first=6, activation=nn.Tanh):
    return net(nn.Conv2d(3, first, 3, bias=False), activation(), nn.Flatten(),
               nn.Linear(first * 36, CLASSES)).float()  # fmt: skip


def perceptron(activation=nn.ReLU):
    return net(nn.Flatten(), nn.Linear(192, 150), activation(), nn.Linear(150, CLASSES)).float()


def in_blocks(count, seed):
    """Return pictures of four blocks of one colour each."""
    x = images(count, 3, 8, 8, seed=seed).float()
    return nn.functional.interpolate(x[..., ::4, ::4], size=(8, 8))


def seen(model, count, *, seed=0, blocks=False):
    """Return what the server sees of a batch in float32, what it knows, and the inputs."""
    x = in_blocks(count, seed) if blocks else images(count, 3, 8, 8, seed=seed).float()
    labels = torch.randint(CLASSES, (count,), generator=generator(seed, "labels"))
    known = Auxiliary(model, CLASSES, input_shape=(3, 8, 8))
    return view(model, gradient(model, x, labels), count), known, x


@pytest.mark.parametrize(
    ("attack", "model", "count"),
    [(r_gap, conv(), 1), (hybrid, conv(), 1), (joint, conv(), 1), (r_gap, perceptron(), 1),
     (analytic, perceptron(), 1), (spear, perceptron(), 1), (spear, perceptron(), 4)],
)  # fmt: skip
def test_inputs_come_back_in_the_datas_own_range(attack, model, count):
    observed, known, x = seen(model, count)
    found = values_of(attack(observed, known, generator(0)))
    assert found.shape == x.shape
    best = [max(psnr(one, true) for one in found) for true in x]
    assert min(best) > 60


@pytest.mark.parametrize("attack", [r_gap, analytic, partial(joint, steps=10), spear])
def test_answers_and_their_grades_keep_float64(attack):
    model = perceptron(nn.ReLU if attack is spear else nn.Sigmoid).double()
    x = images(1, 3, 8, 8)
    known = Auxiliary(model, CLASSES, input_shape=(3, 8, 8))
    observed = view(model, gradient(model, x, torch.tensor([1])), 1)
    guess = values_of(attack(observed, known, generator(0)))
    assert guess.dtype == torch.float64
    low, high = bounds(x)
    lineup = Lineup(examples=x, others=torch.arange(0), blank=x[0] * 0, low=low, high=high)
    nothing = torch.zeros(0, dtype=torch.int64)
    truth = Truth(labels=nothing, indices=nothing, inputs=x, lineup=lineup)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no others to tell it from
        assert pool([checked(guess, known)], [truth])["psnr"] > 200


def test_the_hybrid_beats_the_least_norm_where_the_first_layer_leaves_the_input_open():
    gains = []
    for seed in range(3):
        observed, known, x = seen(conv(first=2), 1, seed=seed, blocks=True)
        both = (attack(observed, known, generator(0)) for attack in (r_gap, hybrid))
        least, smooth = (psnr(found, x) for found in both)
        gains.append(smooth - least)
    assert min(gains) > 1


def test_behind_the_first_layer_the_hybrid_goes_on_with_the_whole_gradient():
    model = net(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Tanh(), nn.Conv2d(6, 4, 3, bias=False),
        nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, CLASSES),
    ).float()  # fmt: skip
    observed, known, x = seen(model, 1)
    assert psnr(r_gap(observed, known, generator(0)), x) < 25
    assert psnr(hybrid(observed, known, generator(0)), x) > 60


@pytest.mark.parametrize("attack", [r_gap, joint, analytic])
def test_weights_after_one_step_are_a_gradient(attack):
    model = perceptron(nn.Sigmoid)
    x, label = images(1, 3, 8, 8).float(), torch.tensor([2])
    before = sent(model)
    delta = {name: -0.1 * g for name, g in gradient(model, x, label).items()}
    observed = View([Observation(before, Update(1, "0", delta, 1), STEP)])
    found = attack(observed, Auxiliary(model, CLASSES, input_shape=(3, 8, 8)), generator(0))
    assert psnr(found, x) > 60


@pytest.mark.parametrize("attack", [r_gap, hybrid, spear])
def test_several_steps_are_one_clear_sentence(attack):
    observed, known, _ = seen(perceptron(), 1)
    local = replace(STEP, epochs=3)
    several = View([replace(observed.latest, local=local)])
    with pytest.raises(ValueError, match="local: must be one step for this attack, got 3"):
        attack(several, known, generator(0))


@pytest.mark.parametrize(
    "local",
    [
        LocalTraining(0.1, 1, epochs=2, upload="weights"),
        LocalTraining(0.1, 1, epochs=3, upload="weights", momentum=0.9),
    ],
)
def test_the_joint_attack_simulates_local_steps(local):
    model, x = conv(), images(1, 3, 8, 8).float()
    labels, before = torch.tensor([3]), sent(model)
    after, _ = train(model, before, x, labels, local, generator=generator(0))
    model.load_state_dict(before)
    delta = {name: after[name] - before[name] for name in before}
    observed = View([Observation(before, Update(1, "0", delta, 1), local)])
    known = Auxiliary(model, CLASSES, input_shape=(3, 8, 8))
    found = joint(observed, known, generator(0), steps=12)
    assert psnr(found, x) > 100


@pytest.mark.parametrize("attack", [r_gap, hybrid])
def test_a_batch_is_one_clear_sentence(attack):
    observed, known, _ = seen(conv(), 3)
    with pytest.raises(ValueError, match="num_examples: must be 1 to walk back .*, got 3"):
        attack(observed, known, generator(0))


@pytest.mark.parametrize(
    ("attack", "layer", "reason"),
    [
        (r_gap, nn.MaxPool2d(2), "1 = MaxPool2d: cannot be walked back"),
        (r_gap, nn.BatchNorm2d(6), "1 = BatchNorm2d: cannot be walked back"),
        (joint, nn.BatchNorm2d(6), "1 = BatchNorm2d: an example's gradient depends on what"),
        (joint, nn.Dropout(0.5), "1 = Dropout: an example's gradient depends on what"),
        (spear, nn.Identity(), "0 = Conv2d: the first layer must be linear"),
        (analytic, nn.Identity(), "0 = Conv2d: the first layer must be linear"),
    ],
)
def test_a_layer_that_does_not_go_is_named(attack, layer, reason):
    with torch.no_grad():
        size = nn.Sequential(nn.Conv2d(3, 6, 3), layer).eval()(torch.zeros(2, 3, 8, 8))[0].numel()
    model = nn.Sequential(nn.Conv2d(3, 6, 3), layer, nn.Flatten(), nn.Linear(size, CLASSES))
    observed, known, _ = seen(model.eval(), 1)
    with pytest.raises(ValueError, match=reason):
        attack(observed, known, generator(0))


class Residual(nn.Module):
    """A block with a branch."""

    def __init__(self, input_shape=(3, 8, 8), num_classes=CLASSES):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 3, padding=1)
        self.head = nn.Linear(432, num_classes)

    def forward(self, x):
        h = torch.sigmoid(self.one(x))
        return self.head((h + torch.sigmoid(self.two(h))).flatten(1))


def pooled(layer):
    return net(nn.Conv2d(3, 12, 3), layer, nn.Tanh(), nn.Flatten(), nn.Linear(108, CLASSES)).float()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Residual(), "model = Residual: layers must follow"),
        (pooled(nn.AvgPool2d(2)), "1 = AvgPool2d: cannot be walked back through; gradient match"),
    ],
)
def test_the_hybrid_hands_over_to_gradient_matching_and_says_why(model, said):
    observed, known, x = seen(model, 1, blocks=True)
    known = replace(known, inputs=in_blocks(8, 7), labels=torch.arange(8) % CLASSES)
    with remarks_of_attacks() as remarks:
        answer = hybrid(observed, known, generator(0), iterations=150)
    assert any("chosen on 2 rehearsed" in it for it in remarks)
    assert any(said in it for it in remarks)
    assert psnr(answer.values, x) > psnr(torch.full_like(x, 0.5), x) + 5


def test_a_remark_stands_beside_the_answer_in_the_metrics_and_other_warnings_pass():
    observed, known, _ = seen(pooled(nn.AvgPool2d(2)), 1)
    attack = replace(ATTACKS["hybrid"], infer=partial(hybrid, iterations=3))
    (answer,) = attack_view(observed, [attack], known, 0)
    _, note = grade(answer, None)
    assert (note.attack, note.kind, note.client) == ("hybrid", "note", "0")
    assert "gradient matching instead" in note.reason

    def loud(view, auxiliary, stream):
        warnings.warn("an overflow", RuntimeWarning, stacklevel=1)
        return torch.zeros(1, 3, 8, 8)

    with pytest.warns(RuntimeWarning, match="an overflow"):
        (answer,) = attack_view(observed, [replace(attack, infer=loud)], known, 0)
    assert answer.remark is None


def test_what_is_missing_or_broken_is_one_clear_sentence():
    observed, known, _ = seen(perceptron(), 1)
    latest = observed.latest
    without = {name: g for name, g in latest.update.delta.items() if name != "1.bias"}
    for delta, reason in (
        (without, "1.bias: must be in the update"),
        ({n: g * torch.nan for n, g in latest.update.delta.items()}, "update: .* must be finite"),
        ({n: g * 0 for n, g in latest.update.delta.items()}, "gradient must reach every layer"),
    ):
        broken = View([replace(latest, update=replace(latest.update, delta=delta))])
        with pytest.raises(ValueError, match=reason):
            r_gap(broken, known, generator(0))
    summed = View([replace(latest, update=replace(latest.update, num_clients=4))])
    with pytest.raises(ValueError, match="num_clients: must be 1 to reconstruct"):
        analytic(summed, known, generator(0))
    with pytest.raises(ValueError, match="steps, restarts must be at least 1, got 0, 1"):
        joint(observed, known, generator(0), steps=0)


def test_spear_wants_relu():
    observed, known, _ = seen(perceptron(nn.Tanh), 2)
    with pytest.raises(ValueError, match="1: ReLU must follow, got Tanh"):
        spear(observed, known, generator(0))


def test_a_real_client_of_one_image_is_reconstructed():
    model, x, label = conv(), images(1, 3, 8, 8).float(), torch.tensor([3])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after, _ = train(model, before, x, label, STEP, generator=generator(0))
    delta = {name: after[name] - before[name] for name in before}
    observed = View([Observation(before, Update(1, "0", delta, 1), STEP)])
    model.load_state_dict(before)
    found = r_gap(observed, Auxiliary(model, CLASSES, input_shape=(3, 8, 8)), generator(0))
    assert psnr(found, x) > 40


@pytest.mark.parametrize("name", ["r-gap", "hybrid", "analytic"])
def test_a_closed_form_says_where_its_answer_does_not_explain_the_upload(name):
    model = perceptron() if name == "analytic" else conv()
    observed, known, _ = seen(model, 1)
    latest = observed.latest
    largest = {key: value.abs().quantile(0.8) for key, value in latest.update.delta.items()}
    cut = {k: v.where(v.abs() >= largest[k], 0) for k, v in latest.update.delta.items()}
    cut_view = View([replace(latest, update=replace(latest.update, delta=cut))])
    for each, said in ((observed, False), (cut_view, True)):
        with remarks_of_attacks() as remarks:
            ATTACKS[name].infer(each, known, generator(0))
        assert any("the answer is not verified" in it for it in remarks) == said


def test_inputs_that_may_be_mixtures_are_counted():
    observed, known, _ = seen(perceptron(nn.Tanh), 3)
    with remarks_of_attacks() as remarks:
        analytic(observed, known, generator(0))
    assert remarks == [
        "3 of 3 inputs stand on one unit alone, which may mix examples: the answer is not verified"
    ]


def test_of_two_classes_units_that_agree_on_a_mixture_are_not_believed():
    model = net(nn.Flatten(), nn.Linear(192, 150), nn.ReLU(), nn.Linear(150, 2)).float()
    nn.init.constant_(model[1].bias, 10.0)  # both examples are active on every unit
    x, labels = images(2, 3, 8, 8).float(), torch.tensor([0, 1])
    known = Auxiliary(model, 2, input_shape=(3, 8, 8))
    observed = view(model, gradient(model, x, labels), 2)
    with pytest.raises(ValueError, match="units: 1 of 2 inputs may mix examples"):
        agreed(observed, known, generator(0))
    with remarks_of_attacks() as remarks:
        analytic(observed, known, generator(0))
    assert "the answer is not verified" in remarks[0]
