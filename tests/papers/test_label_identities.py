"""The identities that label attacks rest on: papers/label.md, section 4, T1 to T13.

Elsewhere: T5 in the tests of each attack (`label_cases.hand`), T6 in test_llg, T8's momentum and
FedProx in test_steps, T11 in contracts/test_attacks and test_counts, T14 in test_label_floors.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adversary.attacks import ATTACKS
from adversary.attacks.eb_gls import eb_gls
from adversary.labels.head import Forward, HeadGradient, forward, read_head
from adversary.workspace import workspace
from fedsim import models
from fedsim.config import Model
from fedsim.core.form import Form
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.data.digits import digits
from tests.adversary.label_cases import assert_equivariant, client, untrained, zero_head
from tests.builders import (
    auxiliary_of,
    bilinear,
    observe,
    plain_gradient,
    prune,
    work_at,
)

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "silu": nn.SiLU}
CLASSES = 7
activations = pytest.mark.parametrize("activation", ACTIVATIONS)
sizes = pytest.mark.parametrize("size", [1, 3, 17, 64])


@dataclass(frozen=True)
class Batch:
    """A batch in double precision, as attacks see it: the head's gradient, and a forward pass."""

    labels: Tensor
    head: HeadGradient
    there: Forward

    @property
    def counts(self) -> Tensor:
        return torch.bincount(self.labels, minlength=CLASSES).double()


def batch(activation: str, size: int, *, seed: int = 0, **local) -> Batch:
    stream = generator(seed, "identities", activation, size)
    model = nn.Sequential(nn.Linear(5, 12), ACTIVATIONS[activation](), nn.Linear(12, CLASSES))
    for parameter in model.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=stream).double() / 2
    inputs = torch.randn(size, 5, generator=stream).double()
    labels = torch.randint(CLASSES, (size,), generator=stream)
    told = LocalTraining(0.1, size, upload="gradient", **local)
    latest, auxiliary = client(model, inputs, labels, told).latest, auxiliary_of(model, CLASSES)
    work = work_at(auxiliary, latest.sent)
    return Batch(labels, read_head(latest, work), forward(work, latest.sent, inputs))


@activations
@sizes
def test_entries_add_up_to_zero_over_classes(activation, size):  # T1
    head = batch(activation, size).head
    for entries in (head.bias.unsqueeze(1), head.weight):
        assert float(entries.sum(0).abs().max()) <= 1e-14 * float(entries.abs().sum(0).max())


@activations
@sizes
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_counts_are_probabilities_minus_the_bias_gradient(activation, size, smoothing):  # T2, T9
    it = batch(activation, size, label_smoothing=smoothing)
    found = it.there.probabilities.sum(0) - smoothing * size / CLASSES + it.head.bias.neg()
    torch.testing.assert_close(found / (1 - smoothing), it.counts, rtol=0, atol=1e-13)


@activations
def test_the_bias_gradient_bounds_the_counts_from_below(activation):  # T3: E2
    for seed in range(20):
        it = batch(activation, 1 + seed, seed=seed)
        assert bool((it.counts > it.head.bias.neg()).all())


def wrongly_present(activation: str) -> int:
    """Return how often a row with a negative entry is that of an absent class."""
    its = [batch(activation, 4, seed=seed) for seed in range(20)]
    return sum(int(((it.head.weight.amin(1) < 0) & (it.counts == 0)).sum()) for it in its)


def test_negative_entries_prove_a_class_where_no_feature_is_negative():  # T3: E3
    assert wrongly_present("relu") == wrongly_present("sigmoid") == 0
    assert wrongly_present("tanh") > 0  # a signed feature proves nothing


@pytest.mark.parametrize("size", [1, 7, 128, 1000])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_zero_head_gives_the_counts_exactly(activation, size):  # T4
    stream = generator(size, "zero head")
    labels = torch.randint(CLASSES, (size,), generator=stream)
    inputs = torch.randn(size, 5, generator=stream).double()
    model = nn.Sequential(nn.Linear(5, 6), ACTIVATIONS[activation](), zero_head(6, CLASSES))
    view = observe(plain_gradient(model.double(), inputs, labels), size, sent=model)
    counts = torch.bincount(labels, minlength=CLASSES)
    auxiliary = auxiliary_of(model, CLASSES)
    found = size / CLASSES - read_head(view.latest, workspace(view, auxiliary)).bias
    torch.testing.assert_close(found, counts.double(), rtol=0, atol=5e-14 * max(size, 7))
    assert torch.equal(ATTACKS["llbg"].infer(view, auxiliary, generator(0)), counts)


@activations
def test_one_example_is_read_off_its_gradient(activation):  # T7
    for seed in range(10):
        it = batch(activation, 1, seed=seed)
        label, others = int(it.labels), torch.arange(CLASSES) != int(it.labels)
        assert int(it.head.bias.argmin()) == label
        features = it.there.features.double().expand(CLASSES, -1)
        torch.testing.assert_close(it.head.weight / it.head.bias.unsqueeze(1), features)
        cosine = torch.cosine_similarity(it.head.weight[label], it.head.weight[others])
        torch.testing.assert_close(cosine, -torch.ones_like(cosine))


def trained_and_gradient(lr: float, **local) -> tuple[Tensor, Tensor, int]:
    """Return the head's gradient as read from trained weights and from a gradient, and steps."""
    stream = generator(0, "small steps")
    model = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, CLASSES)).double()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=stream).double() / 2
    inputs = torch.randn(24, 5, generator=stream).double()
    labels = torch.randint(CLASSES, (24,), generator=stream)
    auxiliary = auxiliary_of(model, CLASSES)
    weights = LocalTraining(lr, **{"batch_size": 24, **local})
    gradient = LocalTraining(lr, 24, upload="gradient")
    several, once = (
        read_head(client(model, inputs, labels, told).latest, work_at(auxiliary, {}))
        for told in (weights, gradient)
    )
    return several.weight, once.weight, several.steps


def test_one_full_step_of_training_is_the_gradient():  # T8
    for lr in (1e-2, 1.0):
        trained, gradient, steps = trained_and_gradient(lr)
        assert steps == 1
        assert float((trained - gradient).norm() / gradient.norm()) < 1e-12 / lr


def test_many_small_steps_are_that_many_gradients():  # T8
    away = []
    for lr in (1e-2, 1e-4, 1e-6):
        trained, gradient, steps = trained_and_gradient(lr, batch_size=8, epochs=3)
        assert steps == 9
        away.append(float((trained / 3 - gradient).norm() / gradient.norm()))
    assert away[0] < 0.1
    slopes = torch.tensor(away).log10().diff() / -2
    torch.testing.assert_close(slopes, torch.ones(2), rtol=0, atol=0.1)


DETERMINISTIC = [
    name
    for name, attack in ATTACKS.items()
    if attack.family == "label"
    and attack.kinds is None
    and not attack.baseline
    and name not in ("eb-gls-gibbs", "eb-gls-sim")
]
metamorphic = pytest.mark.parametrize("name", DETERMINISTIC)
FULL_BATCH = [
    LocalTraining(0.1, 40, upload="gradient"),
    LocalTraining(0.5, 40),
    LocalTraining(0.01, 40, momentum=0.9, proximal_mu=1.0),
    LocalTraining(0.1, 40, epochs=2),
]


def blobs(name: str, local: LocalTraining, *, backwards: bool = False) -> Tensor:
    """Return an attack's answer on 40 blobs of four classes, in one order or the other."""
    stream = generator(0, "metamorphic")
    centres = torch.randn(4, 4, generator=stream)
    labels = torch.tensor([0] * 22 + [1] * 10 + [2] * 6 + [3] * 2)
    inputs = centres[labels] + 0.5 * torch.randn(40, 4, generator=stream)
    model, there = bilinear(4, features=12), torch.arange(200) % 4
    others = centres[there] + 0.5 * torch.randn(200, 4, generator=stream)
    if backwards:
        inputs, labels = inputs.flip(0), labels.flip(0)
    coins = generator(0)
    before = coins.get_state()
    view = client(model, inputs, labels, local)
    guess = ATTACKS[name].infer(view, Auxiliary(model, 4, inputs=others, labels=there), coins)
    assert torch.equal(coins.get_state(), before)  # it draws nothing
    return guess


@metamorphic
def test_other_names_of_the_classes_change_only_the_names(name):  # T9
    assert_equivariant(ATTACKS[name].infer)


@metamorphic
def test_the_order_of_the_examples_does_not_matter(name):  # T9
    for local in (FULL_BATCH[0], FULL_BATCH[-1]):
        assert torch.equal(blobs(name, local), blobs(name, local, backwards=True))


@metamorphic
def test_sign_and_scale_of_the_upload_do_not_matter(name):  # T9
    first, *others = (blobs(name, local) for local in FULL_BATCH[:3])
    assert all(torch.equal(first, other) for other in others)


def digits_without_pattern(seed: int) -> tuple[View, Auxiliary, Tensor]:
    """Return a client whose images carry labels that have nothing to do with them."""
    dataset, stream = digits(Path()), generator(seed, "no pattern")
    model = models.build(Model(name="mlp", hidden=64), Form((1, 8, 8), 10), seed=seed)
    rows = torch.randperm(len(dataset.labels), generator=stream)[:32]
    labels = torch.randint(10, (32,), generator=stream)
    local = LocalTraining(0.1, 32, upload="gradient")
    view = client(model, dataset.inputs[rows], labels, local, seed=seed)
    auxiliary = Auxiliary(model, 10, inputs=dataset.test_inputs, labels=dataset.test_labels)
    return view, auxiliary, torch.bincount(labels, minlength=10)


def test_labels_are_read_from_the_gradient_and_not_guessed_from_images():  # T10
    for seed in range(10):
        view, auxiliary, counts = digits_without_pattern(seed)
        assert torch.equal(eb_gls(view, auxiliary, generator(0)), counts)


COHORT = [[6, 0, 2, 0], [1, 5, 2, 0], [0, 0, 0, 8], [2, 2, 2, 2], [7, 1, 0, 0]]


@pytest.mark.parametrize("upload", ["gradient", "weights"])
@pytest.mark.parametrize("name", ["eb-gls", "eb-gls-sim", "eb-gls-rounds", "rlu", "llbg", "ilrg"])
def test_a_sum_over_clients_gives_the_sum_of_their_counts(name, upload):  # T12
    local = {"lr": 1e-3, "batch_size": 8 if upload == "gradient" else 4, "upload": upload}
    known_to = untrained(COHORT[0], **local)[1]
    latest = [untrained(counts, **local)[0].latest for counts in COHORT]
    counts = torch.tensor(COHORT).sum(0)
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        deltas = [latest[k].update.delta for k in order]
        summed = {key: sum(delta[key] for delta in deltas) for key in deltas[0]}
        update = Update(1, "cohort", summed, int(counts.sum()), num_clients=len(COHORT))
        view = View([Observation(latest[0].sent, update, latest[0].local)])
        assert torch.equal(ATTACKS[name].infer(view, known_to, generator(0)), counts)


@pytest.mark.parametrize("rate", [0.2, 0.8, 0.99])
def test_pruning_leaves_its_share_of_every_tensor(rate):  # T13
    model = models.build(Model(name="lenet5"), Form((1, 28, 28), 10), seed=0)
    update = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in prune(update, rate).items():
        left = value != 0
        assert int(left.sum()) == max(1, round((1 - rate) * value.numel()))
        assert torch.equal(value[left], update[name][left])
        gone = update[name][~left].abs()
        assert not gone.numel() or float(gone.max()) <= float(value[left].abs().min())
