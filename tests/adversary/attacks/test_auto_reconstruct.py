"""What is chosen for ten architectures, what is said of it, and what it gives back."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks.allotments import planned
from adversary.attacks.analytic import agreed
from adversary.attacks.auto_reconstruct import auto_reconstruct
from adversary.attacks.joint import joint
from adversary.inversion.setting import setting_of
from clients.train import train
from fedsim import models
from fedsim.config import Model
from fedsim.core.errors import NotApplicable, Remark, remarks_of_attacks
from fedsim.core.form import Form
from fedsim.core.rng import generator, global_stream
from fedsim.core.schema import Column, Schema
from fedsim.core.types import Auxiliary, Estimate, LocalTraining
from tests.adversary.inversion.inversion_cases import psnr
from tests.builders import observe, plain_gradient

IMAGE, SEQUENCE, CLASSES = (3, 8, 8), (12, 8), 4
WEIGHT = "1.weight"  # of the first layer of `mlp`
ONE = LocalTraining(0.1, 1, upload="gradient")


def resnet(input_shape, num_classes):
    """A torchvision model, as users write it."""
    from torchvision.models import ResNet
    from torchvision.models.resnet import BasicBlock

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)


def convnet(input_shape, num_classes):
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(8 * 16, num_classes)),
    )


def strided(input_shape, num_classes):
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 4, stride=2, bias=False), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(6 * 9, num_classes)),
    )


SMALL = "tests.benchmarks.small_models:"
HERE = "tests.adversary.attacks.test_auto_reconstruct:"
ARCHITECTURES = {  # the attack that is tried first
    "mlp": (IMAGE, "analytic"),
    "lenet": ((3, 16, 16), "hybrid"),
    "cnn": (IMAGE, "subspace"),
    HERE + "strided": (IMAGE, "hybrid"),
    HERE + "resnet": ((3, 40, 40), "subspace"),
    HERE + "convnet": (IMAGE, "inverting-gradients"),
    SMALL + "vit": (IMAGE, "april"),
    SMALL + "lstm": (SEQUENCE, "joint"),
    SMALL + "gru": (SEQUENCE, "joint"),
    SMALL + "conv1d": (SEQUENCE, "inverting-gradients"),
    "tests.odd_models:Plain": ((9,), "analytic"),
    "tests.odd_models:Attending": ((9,), "inverting-gradients"),
}


def built(name, shape, **options):
    with global_stream(0, name):
        return models.build(Model(name=name, **options), Form(shape, CLASSES), seed=0)


def attacked(model, inputs, labels, local=ONE, **options):
    """Return the answer and the remark."""
    view = observe(plain_gradient(model, inputs, labels), len(labels), sent=model, local=local)
    auxiliary = Auxiliary(model, CLASSES, input_shape=tuple(inputs.shape[1:]))
    with remarks_of_attacks() as remarks:
        answer = auto_reconstruct(view, auxiliary, generator(0, "auto"), **options)
    return answer, "; ".join(remarks)


@pytest.mark.parametrize(
    "name",
    [pytest.param(it, marks=pytest.mark.slow) if it.endswith(":resnet") else it
     for it in ARCHITECTURES],
)  # fmt: skip
def test_every_architecture_has_an_answer_and_a_reason(name):
    shape, first = ARCHITECTURES[name]
    model = built(name, shape)
    auxiliary = Auxiliary(model, CLASSES, input_shape=shape)
    assert planned(auxiliary, ONE, 1).startswith(f"tries {first} (")
    inputs = torch.rand(1, *shape, generator=generator(0, "inputs"))
    answer, remark = attacked(model, inputs, torch.tensor([1]), iterations=2, steps=1)
    values = answer.values if isinstance(answer, Estimate) else answer
    assert values.shape == inputs.shape
    assert values.isfinite().all()
    assert ", because " in remark
    assert "its simulated upload differs by" in remark


class Tempered(nn.Module):
    """Has a parameter of no axis."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Linear(n, m, bias=False) for n, m in ((16, 20), (20, CLASSES)))
        self.temperature = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return self.b(torch.tanh(self.a(x))) * self.temperature


class UsedAgain(nn.Module):
    """Goes back through its first layer's weight, which no second module shows."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 12), nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.b(torch.sigmoid(self.a(x)) @ self.a.weight)


@pytest.mark.parametrize("build", [Tempered, UsedAgain])
def test_models_whose_parameters_are_odd_are_solved(build):
    with global_stream(0, "odd"):
        model = build()
    x = torch.rand(1, 16, generator=generator(0, "inputs"))
    answer, remark = attacked(model, x, torch.tensor([1]), budget=0.02)
    assert remark.startswith("joint, because")
    assert psnr(answer.values, x) > 60


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_example_behind_a_linear_layer_is_exact_after_any_steps(epochs, momentum):
    model = built("mlp", IMAGE, hidden=16)
    local = LocalTraining(0.5, 1, epochs, momentum=momentum)
    x, label = torch.rand(1, *IMAGE, generator=generator(0, "inputs")), torch.tensor([1])
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    trained, _ = train(model, sent, x, label, local, generator=generator(0, "order"))
    delta = {name: trained[name] - value for name, value in sent.items()}
    view = observe(delta, 1, sent=sent, local=local)
    auxiliary = Auxiliary(model, CLASSES, input_shape=IMAGE)
    with pytest.warns(Remark, match="analytic, because the first layer .* of one example"):
        answer = auto_reconstruct(view, auxiliary, generator(0, "auto"))
    assert psnr(answer, x) > 60


@pytest.mark.parametrize("epochs", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_of_batches_of_one_labels_and_orders_are_fitted_and_another_protocol_is_not_verified(
    epochs,
):
    with global_stream(0, "smooth"):
        model = nn.Sequential(nn.Linear(16, 30, bias=False), nn.Sigmoid(), nn.Linear(30, CLASSES))
    local, labels = LocalTraining(0.5, 1, 2), torch.tensor([1, 2])
    x = torch.rand(2, 16, generator=generator(0, "inputs"))
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    trained, _ = train(model, sent, x, labels, local, generator=generator(0, "order"))
    delta = {name: trained[name] - value for name, value in sent.items()}
    view = observe(delta, 2, sent=sent, local=replace(local, epochs=epochs))
    auxiliary = Auxiliary(model, CLASSES, input_shape=(16,))
    assert "labels and orders are fitted" in planned(auxiliary, local, 2)
    with remarks_of_attacks() as remarks:
        answer = auto_reconstruct(view, auxiliary, generator(0, "auto"), budget=0.02)
    (remark,) = remarks
    assert re.match("joint, .* labels and orders are fitted", remark)
    right = max(psnr(answer.values, x), psnr(answer.values.flip(0), x)) > 60
    assert right == (epochs == 2)
    assert ("not verified" in remark) == (not right)


@pytest.mark.parametrize(("lr", "verified"), [(0.1, True), (1e-7, False)])
def test_what_rounding_leaves_open_is_not_verified(lr, verified):
    with global_stream(0, "smooth"):
        model = nn.Sequential(nn.Linear(16, 30, bias=False), nn.Sigmoid(), nn.Linear(30, CLASSES))
    x, label = torch.rand(1, 16, generator=generator(0, "inputs")), torch.tensor([1])
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    local = LocalTraining(lr, 1)
    trained, _ = train(model, sent, x, label, local, generator=generator(0, "order"))
    delta = {name: trained[name] - value for name, value in sent.items()}
    view = observe(delta, 1, sent=sent, local=local)
    auxiliary = Auxiliary(model, CLASSES, input_shape=(16,))
    with remarks_of_attacks() as remarks:
        auto_reconstruct(view, auxiliary, generator(0, "auto"), budget=0.002)
    (remark,) = remarks
    assert "its simulated upload differs by" in remark
    assert ("not verified" in remark) == (not verified)
    with remarks_of_attacks() as remarks:
        joint(view, auxiliary, generator(0, "joint"), steps=8)
    assert ("not verified" in "; ".join(remarks)) == (not verified)


def test_a_certificate_ends_the_search():
    model = built("mlp", (40,), hidden=60)
    x = torch.rand(2, 40, generator=generator(0, "inputs"))
    answer, remark = attacked(model, x, torch.tensor([0, 1]))
    assert remark.startswith("spear, because ReLU follows the fully connected")
    assert torch.cdist(x.double(), answer.double()).amin(dim=1).max() < 1e-3


def test_a_batch_of_32_on_200_units_is_taken_apart():
    model = built("mlp", (200,), hidden=200)
    x = torch.rand(32, 200, generator=generator(0, "inputs"))
    answer, remark = attacked(model, x, torch.arange(32) % CLASSES, iterations=1)
    assert remark.startswith("spear, because")
    assert torch.cdist(x.double(), answer).amin(dim=1).max() < 1e-3


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [[0, 1, 2], [2, 1, 0], [1, 1, 0]])
def test_a_batch_in_an_order_of_its_own_is_held_to_the_upload(labels, smoothing):
    model = built("mlp", (40,), hidden=100)
    x = torch.rand(3, 40, generator=generator(0, "inputs"))
    loss = nn.functional.cross_entropy(model(x), torch.tensor(labels), label_smoothing=smoothing)
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    delta = {name: it for (name, _), it in zip(model.named_parameters(), slopes, strict=True)}
    local = LocalTraining(0.1, 3, upload="gradient", label_smoothing=smoothing)
    view = observe(delta, 3, sent=model, local=local)
    auxiliary = Auxiliary(model, CLASSES, input_shape=(40,))
    with pytest.warns(Remark, match=r"^spear, .*differs by \de-0[678] of the client's"):
        auto_reconstruct(view, auxiliary, generator(0, "auto"))


def test_batch_norm_leaves_no_labels_to_hold_a_batch_to():
    with global_stream(0, "normed"):
        head = nn.Linear(100, CLASSES)
        model = nn.Sequential(nn.Linear(40, 100), nn.ReLU(), nn.BatchNorm1d(100), head).train()
    x = torch.rand(3, 40, generator=generator(0, "inputs"))
    _, remark = attacked(model, x, torch.arange(3))
    assert remark.startswith("spear, because")
    assert "differs by" not in remark


def test_a_client_of_no_examples_is_refused():
    model = built("mlp", (40,), hidden=16)
    delta = plain_gradient(model, torch.rand(1, 40), torch.tensor([1]))
    auxiliary = Auxiliary(model, CLASSES, input_shape=(40,))
    with pytest.raises(NotApplicable, match="num_examples: must be at least 1, got 0"):
        auto_reconstruct(observe(delta, 0, sent=model), auxiliary, generator(0, "auto"))


def test_parts_that_are_certain_stand_in_the_answer():
    model = built("mlp", (40,), hidden=60)
    with torch.no_grad():  # on the first units the first example is alone
        model[1].weight[:6] = 0.0
        model[1].bias[:6] = -1.0
        model[1].weight[:6, 0] = 4.0
    x = torch.rand(30, 40, generator=generator(0, "inputs"))
    x[:, 0] *= 0.2
    x[0, 0] = 1.0
    answer, remark = attacked(model, x, torch.arange(30) % CLASSES, iterations=2)
    assert "of 30 by analytic" in remark
    assert torch.cdist(x[:1], answer).min() < 0.01


def three_uploaded(change):
    """Return what the server sees of three records after a change of each entry's array."""
    model = built("mlp", (40,), hidden=60)
    x = torch.rand(3, 40, generator=generator(0, "inputs"))
    delta = plain_gradient(model, x, torch.arange(3))
    delta = {name: change(name, value) for name, value in delta.items()}
    return observe(delta, 3, sent=model), Auxiliary(model, CLASSES, input_shape=(40,))


def test_ratios_of_signs_are_not_certain():
    seen = three_uploaded(lambda _, value: value.sign())
    with pytest.raises(ValueError, match="more than the signs of a gradient, got one size"):
        agreed(*seen, generator(0, "agreed"))


def test_zeros_of_pruned_weights_are_not_certain():
    cut = lambda name, value: value * (torch.arange(60) < 2)[:, None] if name == WEIGHT else value
    seen = three_uploaded(cut)
    with pytest.raises(ValueError, match="units: two must agree"):
        agreed(*seen, generator(0, "agreed"))


def test_what_exceeds_the_budget_is_left_out_in_a_sentence():
    model = built("cnn", IMAGE)
    x, label = torch.rand(1, *IMAGE), torch.tensor([1])
    with pytest.raises(
        NotApplicable, match="inverting-gradients: budget: must leave .* operations"
    ):
        attacked(model, x, label, budget=1e-9)
    auxiliary = Auxiliary(model, CLASSES, input_shape=IMAGE)
    said = planned(auxiliary, ONE, 1, budget=1e-9)
    assert re.match("will refuse every update: .*inverting-gradients: budget: must leave", said)
    assert re.search(r"inverting-gradients \(.*; 50 iterations\)", planned(
        auxiliary, ONE, 1, iterations=50))  # fmt: skip
    with pytest.raises(NotApplicable, match="budget: must be above 0, got 0"):
        attacked(model, x, label, budget=0)
    for name in ("iterations", "steps"):
        with pytest.raises(NotApplicable, match=f"{name}: must be at least 1, got -5"):
            attacked(model, x, label, **{name: -5})


class Sign(nn.Module):
    """Takes signs, of which nothing can be differentiated; 1, 2, … classes in a table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(2, CLASSES)

    def forward(self, x):
        return self.table((x > 0.5).long().flatten(1)).sum(1)


def test_a_model_without_a_derivative_is_refused_in_a_sentence():
    model = Sign()
    auxiliary = Auxiliary(model, CLASSES, input_shape=(4,))
    rule = "an attack must fit, got none: the gradient has no derivative in the inputs"
    assert rule in planned(auxiliary, ONE, 1)
    with pytest.raises(NotApplicable, match=rule):
        attacked(model, torch.rand(1, 4), torch.tensor([1]))


def test_a_batch_that_cannot_be_trained_on_is_refused_in_a_sentence():
    model = built(HERE + "resnet", (3, 32, 32))  # batch norm of a single value
    auxiliary = Auxiliary(model, CLASSES, input_shape=(3, 32, 32))
    rule = "a gradient of 1 random examples must be differentiable, got Expected more than 1 value"
    assert rule in planned(auxiliary, ONE, 1)
    assert planned(auxiliary, ONE, 2).startswith("tries inverting-gradients")


def test_an_upload_of_zeros_is_refused():
    model = built("cnn", IMAGE)
    zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    view = observe(zeros, 1, sent=model)
    auxiliary = Auxiliary(model, CLASSES, input_shape=IMAGE)
    with pytest.raises(ValueError, match="update: must not be zero"):
        auto_reconstruct(view, auxiliary, generator(0, "auto"))


@pytest.mark.parametrize(("name", "kink"), [("vit", "relu"), ("lstm", None), ("conv1d", "relu")])
def test_functions_with_kinks_are_seen_wherever_they_are_called(name, kink):
    shape = ARCHITECTURES[SMALL + name][0]
    auxiliary = Auxiliary(built(SMALL + name, shape), CLASSES, input_shape=shape)
    setting = setting_of(auxiliary, ONE, 1)
    assert setting.kink == kink
    assert setting.flat is None


def test_a_linear_layer_on_each_entry_by_itself_is_no_first_layer():
    model = built("tests.odd_models:Attending", (9,))
    assert setting_of(Auxiliary(model, CLASSES, input_shape=(9,)), ONE, 1).first is None


def test_the_cost_grows_with_the_batch():
    auxiliary = Auxiliary(built("cnn", IMAGE), CLASSES, input_shape=IMAGE)
    one, eight = (setting_of(auxiliary, ONE, count).cost for count in (1, 8))
    assert eight == pytest.approx(8 * one, rel=0.1)


def test_records_of_declared_columns_have_their_ensemble_and_its_uncertainty():
    columns = (Column("size", (0,)), Column("colour", (1, 2), ("red", "blue"), torch.eye(2)))
    with global_stream(0, "records"):
        model = nn.Sequential(nn.Linear(3, 8, bias=False), nn.ReLU(), nn.Linear(8, CLASSES))
    auxiliary = Auxiliary(model, CLASSES, input_shape=(3,), schema=Schema(columns))
    assert "tab-leak (inputs encode declared columns of a table; " in planned(auxiliary, ONE, 1)
    x = torch.tensor([[0.4, 0.0, 1.0], [-0.2, 1.0, 0.0]])
    view = observe(plain_gradient(model, x, torch.tensor([0, 1])), 2, sent=model)
    with pytest.warns(Remark, match="^tab-leak, because .*; its simulated upload differs by"):
        answer = auto_reconstruct(view, auxiliary, generator(0, "auto"), iterations=100)
    values = answer.values if isinstance(answer, Estimate) else answer
    assert values.shape == x.shape
