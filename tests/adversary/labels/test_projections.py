from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks import ATTACKS
from adversary.attacks.eb_gls import eb_gls, pose
from adversary.attacks.eb_gls_rounds import eb_gls_rounds
from adversary.labels import projections
from adversary.labels.directions import directions_of
from adversary.labels.head import has_head
from adversary.labels.projections import project
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.examples import example_gradients
from fedsim.core.memory import Memory
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from tests.adversary.heads import NOT_LINEAR, Frozen, NoBias, Plain, Product, Scaled
from tests.adversary.label_cases import asr, client
from tests.builders import prune

CLASSES = 6
COUNTS = [14, 0, 6, 2, 10, 0]
STEP = LocalTraining(lr=0.1, batch_size=32, upload="gradient")


def posed(kind, local=STEP, seed=0):
    """Return what a client of some counts uploads of a model, its adversary, and the counts."""
    with global_stream(seed, "model"):
        body = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU())
        model = kind(body, 12, 8, CLASSES)
    stream = generator(seed, "blobs")
    centres = 2 * torch.randn(CLASSES, 8, generator=stream)
    blobs = lambda labels: centres[labels] + torch.randn(len(labels), 8, generator=stream)
    labels = torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(COUNTS))
    dtype = next(model.parameters()).dtype
    view = client(model, blobs(labels).to(dtype), labels, local, seed=seed)
    of_each = torch.arange(CLASSES).repeat_interleave(40)
    return view, Auxiliary(model, CLASSES, inputs=blobs(of_each), labels=of_each)


def rate(kind, local=STEP, attack=eb_gls, seeds=5):
    """Return the mean share of labels named."""
    rates = []
    for seed in range(seeds):
        view, auxiliary = posed(kind, local, seed)
        guess = attack(view, auxiliary, generator(seed, "attack"))
        rates.append(asr(guess, torch.tensor(COUNTS) * local.epochs))
    return sum(rates) / seeds


@pytest.mark.parametrize("kind", NOT_LINEAR)
def test_every_head_leaks_its_labels(kind):
    view, auxiliary = posed(kind)
    assert not has_head(view.latest, workspace(view, auxiliary))
    assert rate(kind) > 0.9  # at random 0.5


@pytest.mark.parametrize("kind", [Product, Frozen])
def test_so_it_does_over_several_steps(kind):
    local = LocalTraining(lr=0.1, batch_size=8, epochs=2, upload="weights")
    assert rate(kind, local) > 0.8


def test_a_linear_head_says_the_same_with_and_without_being_read(monkeypatch):
    read = rate(Plain)
    monkeypatch.setattr("adversary.attacks.eb_gls.own_head", lambda *_: None)
    assert rate(Plain) > read - 0.05


def test_a_head_that_is_not_uploaded_is_not_missed():
    view, auxiliary = posed(Plain)
    latest = view.latest
    body = {n: v for n, v in latest.update.delta.items() if not n.startswith("head")}
    still = body | {n: torch.zeros_like(v) for n, v in latest.update.delta.items() if n not in body}
    for delta in (body, still):
        withheld = View([Observation(latest.sent, Update(1, "0", delta, 32), latest.local)])
        assert asr(eb_gls(withheld, auxiliary, generator(0)), torch.tensor(COUNTS)) > 0.9
        with pytest.raises(NotApplicable, match="^update: must (hold|move) the head"):
            ATTACKS["llbg"].infer(withheld, auxiliary, generator(0))


def test_what_a_pruning_client_zeroed_is_left_out_on_both_sides():
    view, auxiliary = posed(Product)
    latest = view.latest
    pruned = Update(1, "0", prune(latest.update.delta, 0.8), 32)
    view = View([Observation(latest.sent, pruned, latest.local)])
    assert asr(eb_gls(view, auxiliary, generator(0)), torch.tensor(COUNTS)) > 0.8


def test_zeros_of_sparse_inputs_are_not_pruned(monkeypatch):
    _, auxiliary = posed(Frozen)
    masks, model, stream = [], auxiliary.model, generator(0, "sparse")
    sparse = lambda x: x * (torch.rand(x.shape, generator=stream) < 0.2)
    known = Auxiliary(model, CLASSES, inputs=sparse(auxiliary.inputs), labels=auxiliary.labels)
    kept = lambda *of: masks.append(of[2]) or basis(*of)
    basis = projections.basis_of
    monkeypatch.setattr(projections, "basis_of", kept)
    for size in (4, 12):  # an input that no example has on a unit leaves a zero
        inputs = sparse(torch.randn(size, 8, generator=stream))
        latest = client(model, inputs, torch.arange(size) % CLASSES, STEP).latest
        assert float((latest.update.delta["body.0.weight"] == 0).double().mean()) > 0.05
        project(latest, workspace(View([latest]), known))
    assert not any(masks)


def test_noise_is_measured_from_what_no_example_explains():
    view, auxiliary = posed(Product)
    latest, work = view.latest, workspace(view, auxiliary)
    quiet = project(latest, work)
    stream = generator(0, "noise")
    noisy = {n: v + torch.randn(v.shape, generator=stream) for n, v in latest.update.delta.items()}
    loud = project(Observation(latest.sent, Update(1, "0", noisy, 32), latest.local), work)
    assert float(quiet.noise.max()) < 1e-2 * float(loud.noise.max())
    # 32 labels: the update's noise of variance 1 is 32² in their sum, whose scale is told apart.
    spread = (32**2 / loud.noise).sqrt()
    assert loud.sketch.square().mul(spread**2).mean() == pytest.approx(32**2, rel=0.5)


def test_noisy_gradients_of_any_head_are_answered_by_expected_overlap():
    rates = {"": 0.0, "search": 0.0}
    for seed in range(8):
        view, auxiliary = posed(Scaled, seed=seed)
        stream, latest = generator(seed, "noise"), view.latest
        delta = {
            name: value + 3 * torch.randn(value.shape, generator=stream)
            for name, value in latest.update.delta.items()
        }
        view = View([replace(latest, update=replace(latest.update, delta=delta))])
        assert pose(view.latest, workspace(view, auxiliary)).noisy
        for refine in rates:
            guess = eb_gls(view, auxiliary, generator(0), refine=refine)
            rates[refine] += asr(guess, torch.tensor(COUNTS)) / 8
    assert rates[""] > rates["search"]
    view, auxiliary = posed(Scaled)
    assert not pose(view.latest, workspace(view, auxiliary)).noisy


def test_directions_are_the_means_and_examples_of_the_model_sent():
    view, auxiliary = posed(Product)
    work = workspace(view, auxiliary)
    names = ("shift", "weight")
    model, labels = auxiliary.model, auxiliary.labels
    chosen = {n: v for n, v in model.named_parameters() if n in names}
    each = example_gradients(model, chosen, auxiliary.inputs, labels)
    directions = directions_of(work, names)
    for name in names:
        rows = each[name].flatten(1)
        mean = torch.stack([rows[labels == c].mean(dim=0) for c in range(CLASSES)])
        assert torch.allclose(directions.means[name], mean, atol=1e-6)
        rest = (rows - mean[labels])[directions.spent]
        assert torch.allclose(directions.rest[name], rest, atol=1e-6)


def test_no_example_is_in_the_mean_that_it_is_compared_with(monkeypatch):
    # Labels of pure chance: a new example is as near to the one class's mean as to the other's.
    def apart():
        with global_stream(0, "chance"):
            model = nn.Linear(400, 2, bias=False)
        model.weight.data.zero_()
        stream = generator(0, "chance")
        inputs, labels = torch.randn(40, 400, generator=stream), torch.arange(40) % 2
        inputs *= 2 * labels.unsqueeze(1) - 1  # the gradient of either class is the input, halved
        auxiliary = Auxiliary(model, 2, inputs=inputs, labels=labels)
        view = client(model, inputs[:8], labels[:8], STEP)
        means = project(view.latest, workspace(view, auxiliary)).moments.means
        return float((means[0, 0] - means[0, 1]).abs())

    assert apart() < 1.5  # in units of the spread
    monkeypatch.setattr("adversary.labels.directions._leave_out", lambda *_: None)
    assert apart() > 3


class Branching(Scaled):
    def forward(self, x):
        return super().forward(x) if float(x.sum()) < 1e9 else self.head(self.body(x))


class Doubled(Scaled):
    def __init__(self, *of):
        super().__init__(*of)
        self.double()


@pytest.mark.parametrize("kind", [Branching, Doubled])
def test_odd_models_leak_too(kind):
    assert rate(kind, seeds=2) > 0.9


def test_an_update_that_moves_nothing_that_is_trained_is_refused():
    view, auxiliary = posed(Frozen)
    latest = view.latest
    delta = {name: torch.zeros_like(value) for name, value in latest.update.delta.items()}
    still = Observation(latest.sent, Update(1, "0", delta, 32), latest.local)
    with pytest.raises(NotApplicable, match="^update: must move a trained parameter"):
        pose(still, workspace(view, auxiliary))


def test_an_update_that_is_not_finite_is_refused():
    view, auxiliary = posed(Product)
    latest = view.latest
    delta = dict(latest.update.delta) | {"shift": torch.full((CLASSES,), torch.nan)}
    broken = Observation(latest.sent, Update(1, "0", delta, 32), latest.local)
    with pytest.raises(ValueError, match="^update: must be finite"):
        pose(broken, workspace(view, auxiliary))


def test_means_of_a_class_are_a_part_of_the_workspace():
    view, auxiliary = posed(Product)
    work = workspace(view, auxiliary)
    assert work.part(directions_of, ("weight",)) is work.part(directions_of, ("weight",))


@pytest.mark.parametrize(
    "attack",
    [a for a in ATTACKS.values() if a.family == "label" and a.kinds is None],
    ids=lambda a: a.name,
)
def test_an_attack_says_what_it_reads(attack):
    for kind, lacks in ((Scaled, ("head", "bias")), (NoBias, ("bias",))):
        view, auxiliary = posed(kind)
        if attack.reads in lacks:
            with pytest.raises(NotApplicable):
                attack.infer(view, auxiliary, generator(0))
        else:
            assert int(attack.infer(view, auxiliary, generator(0)).sum()) == 32


@pytest.mark.parametrize("local", [STEP, LocalTraining(lr=0.05, batch_size=8, upload="weights")])
@pytest.mark.parametrize("withheld", [True, False])
def test_rounds_of_clients_that_keep_their_heads_are_not_taken_for_one(local, withheld):
    # The head that was sent and what it moved by, nothing, are the same for all of them.
    run = Memory()
    _, auxiliary = posed(Plain, local)
    model = auxiliary.model
    for place in range(2):
        counts = torch.tensor(COUNTS).roll(place)
        stream = generator(place, "rounds")
        rows = torch.cat(
            [torch.nonzero(auxiliary.labels == c)[:n, 0] for c, n in enumerate(counts)]
        )
        rows = rows[torch.randperm(len(rows), generator=stream)]
        seen = client(model, auxiliary.inputs[rows], auxiliary.labels[rows], local).latest
        delta = {
            n: v if n.startswith("body") else torch.zeros_like(v)
            for n, v in seen.update.delta.items() if not withheld or n.startswith("body")
        }  # fmt: skip
        rounds = [
            Observation(seen.sent, Update(number, str(place), delta, 32), local)
            for number in (1, 2)
        ]
        guess = eb_gls_rounds(View(rounds, memory=Memory(run)), auxiliary, generator(0))
        assert asr(guess, counts) > 0.85, place
