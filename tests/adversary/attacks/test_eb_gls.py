from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from adversary.attacks.eb_gls import (
    ROUNDS,
    eb_gls,
    pose,
    solve,
)
from adversary.labels import trajectory
from adversary.labels.certain import certain, noise_variance
from adversary.labels.covariances import class_means
from adversary.labels.dropped import uploaded
from adversary.labels.head import Forward, HeadGradient, auxiliary_forward, read_head
from adversary.labels.reading import end_forward, steps_per_client
from adversary.labels.trace import POINTS, Trace
from adversary.labels.trajectory import path, simulate, start_of
from adversary.workspace import workspace
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, View
from tests.adversary.label_cases import asr, client, hand, unbalanced, untrained
from tests.builders import prune

ACTIVATIONS = [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.SiLU]
CLASSES = 6


def network(activation, seed, *, bias=True, scale=1.0):
    model = nn.Sequential(nn.Linear(5, 12), activation(), nn.Linear(12, CLASSES, bias=bias))
    for parameter in model.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator(seed, "net")) / 2
    return model


def posed(activation, seed, *, size=8, upload="gradient", **options):
    """Return the observation of a client, its adversary, its labels, and the head's gradient."""
    stream, model = generator(seed, "posed"), network(activation, seed, **options)
    labels = torch.randint(CLASSES, (size,), generator=stream)
    inputs = torch.randn(size, 5, generator=stream)
    local = LocalTraining(0.1, size, upload=upload)
    there = torch.arange(20 * CLASSES) % CLASSES
    known = torch.randn(len(there), 5, generator=stream)
    auxiliary = Auxiliary(model, CLASSES, inputs=known, labels=there)
    latest = client(model, inputs, labels, local).latest
    work = workspace(View([latest]), auxiliary)
    return latest, work, labels, read_head(latest, work)


def proven(model, inputs, labels, local, *, seed=0):
    """Return how many labels a client's update proves; none that it does not have."""
    latest = client(model, inputs, labels, local, seed=seed).latest
    known = Auxiliary(model, CLASSES, inputs=torch.rand(12, 5), labels=torch.arange(12) % CLASSES)
    work = workspace(View([latest]), known)
    lower = certain(latest, work, read_head(latest, work))
    assert bool((lower <= torch.bincount(labels, minlength=CLASSES)).all())
    return int(lower.sum())


@pytest.mark.parametrize("case", ["A", "B"])
def test_worked_example(case):
    # The zero head's shares are (1/3 − e_y)·[h, 1]; the bias alone has the answer.
    view, auxiliary = hand(case)
    known = Auxiliary(
        auxiliary.model,
        3,
        inputs=torch.rand(30, 2, generator=generator(0)),
        labels=torch.arange(30) % 3,
    )
    assert eb_gls(view, known, generator(0)).tolist() == [2, 1, 1]


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any),
    st.sampled_from([nn.ReLU, nn.Tanh]),
    st.sampled_from([0.0, 0.3]),
)
def test_an_untrained_model_gives_the_counts(counts, activation, smoothing):
    view, auxiliary = untrained(counts, activation, label_smoothing=smoothing)
    assert eb_gls(view, auxiliary, generator(0)).tolist() == counts


@pytest.mark.parametrize("form", [{}, {"momentum": 0.5}, {"label_smoothing": 0.2}])
def test_many_small_steps_of_an_untrained_model_are_one(form):
    local = {"lr": 1e-4, "batch_size": 4, "epochs": 3, "upload": "weights"} | form
    view, auxiliary = untrained([9, 0, 3, 4], **local)
    assert eb_gls(view, auxiliary, generator(0)).tolist() == [27, 0, 9, 12]


def without(auxiliary: Auxiliary, keep: Tensor) -> Auxiliary:
    return replace(auxiliary, inputs=auxiliary.inputs[keep], labels=auxiliary.labels[keep])


@pytest.mark.parametrize("known", ["five of each", "two classes are missing"])
def test_poor_auxiliary_data_do_not_mislead(known):
    rates = []
    for seed in range(10):
        latest, work, labels, _ = posed(nn.ReLU, seed, size=60, scale=0.2)
        auxiliary = work.auxiliary
        few = torch.arange(len(auxiliary.labels)) < 5 * CLASSES
        keep = few if known == "five of each" else auxiliary.labels.ge(2)
        guess = eb_gls(View([latest]), without(auxiliary, keep), generator(0))
        rates.append(asr(guess, torch.bincount(labels, minlength=CLASSES)))
    assert sum(rates) / 10 > 0.95


def test_features_beyond_the_auxiliary_examples_do_not_mislead():
    # Of 30 examples a covariance is blind to most of 100 features' directions.
    for seed in range(5):
        stream = generator(seed, "wide")
        model = nn.Sequential(nn.Linear(12, 100), nn.ReLU(), nn.Linear(100, 2))
        for parameter in model.parameters():
            drawn = torch.rand(parameter.shape, generator=stream)
            parameter.data = (2 * drawn - 1) * parameter.shape[-1] ** -0.5
        inputs, labels = torch.randn(38, 12, generator=stream), torch.arange(38) % 3 % 2
        auxiliary = Auxiliary(model, 2, inputs=inputs[8:], labels=labels[8:])
        view = client(model, inputs[:8], labels[:8], LocalTraining(0.1, 8, upload="gradient"))
        assert eb_gls(view, auxiliary, generator(0)).tolist() == [5, 3]


def test_bounds_hold_in_every_network():  # papers/label.md, T3
    used = 0
    for activation in ACTIVATIONS:
        for seed in range(20):
            latest, work, labels, head = posed(activation, seed, size=1 + seed)
            lower = certain(latest, work, head)
            counts = torch.bincount(labels, minlength=CLASSES)
            assert bool((lower <= counts).all())
            assert bool((lower >= head.bias.add(1e-3).neg().clamp(min=0)).all())
            guess = eb_gls(View([latest]), work.auxiliary, generator(0))
            assert bool((guess >= lower).all())
            used += int(lower.sum())
    assert used > 80  # one and more of every network


def test_negative_entries_count_only_where_no_feature_is_negative():
    # Without a bias they are all there is.
    for seed in range(10):
        latest, work, labels, head = posed(nn.ReLU, seed, bias=False)
        lower = certain(latest, work, head)
        negative = head.weight.amin(1) < -1e-4 * head.weight.abs().max()
        assert torch.equal(lower, negative.double())
        assert bool((lower <= torch.bincount(labels, minlength=CLASSES)).all())
        latest, work, _, head = posed(nn.Tanh, seed, bias=False)
        assert bool((head.weight.amin(1) < 0).all())  # it would name all classes
        assert int(certain(latest, work, head).sum()) == 0


def test_only_one_clean_update_of_one_client_proves_anything():
    latest, work, _, head = posed(nn.ReLU, 0)
    assert int(certain(latest, work, head).sum()) > 0
    several = replace(latest, update=replace(latest.update, num_clients=2))
    noisy = replace(head, observed=head.observed + 0.01 * torch.randn(CLASSES, 12))
    empty = HeadGradient(torch.zeros(CLASSES, 12), torch.zeros(CLASSES), 8.0, 8, 1)
    for observation, gradient in ((several, head), (latest, noisy), (latest, empty)):
        assert int(certain(observation, work, gradient).sum()) == 0


LOCALS = [
    LocalTraining(0.05, 16),
    LocalTraining(0.05, 4),
    LocalTraining(0.05, 4, epochs=3, momentum=0.9),
    LocalTraining(0.05, 4, epochs=3, proximal_mu=0.5),
    LocalTraining(0.05, 4, epochs=2, label_smoothing=0.1),
]


@pytest.mark.parametrize("local", LOCALS)
def test_uploaded_weights_prove_no_more_than_is_true(local):
    used = 0
    for seed in range(20):
        stream, model = generator(seed, "weights"), network(nn.ReLU, seed)
        labels = torch.randint(CLASSES, (1 + seed % 9,), generator=stream)
        inputs = torch.randn(len(labels), 5, generator=stream)
        used += proven(model, inputs, labels, local, seed=seed)
    assert (used > 20) == (not local.proximal_mu and not local.label_smoothing)


@pytest.mark.parametrize("epochs", [1, 3])
def test_one_example_that_a_model_fits_well_is_read_off_uploaded_weights(epochs):
    for seed in range(6):
        stream, model = generator(seed, "fits"), network(nn.ReLU, seed, scale=2.5)
        known = torch.randn(40, 5, generator=stream)
        with torch.no_grad():
            labels = model(known).argmax(dim=1)  # of confident probabilities
        auxiliary = Auxiliary(model, CLASSES, inputs=known[10:], labels=labels[10:])
        view = client(model, known[:1], labels[:1], LocalTraining(0.05, 16, epochs=epochs))
        guess = eb_gls(view, auxiliary, generator(0))
        assert int(guess.argmax()) == int(labels[0])
        assert int(guess.sum()) == epochs


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bounds_of_smoothed_labels_hold(smoothing):
    used = 0
    for seed in range(10):
        stream, model = generator(seed, "smooth"), network(nn.ReLU, seed)
        labels = torch.randint(CLASSES, (9,), generator=stream)
        local = LocalTraining(0.1, 9, upload="gradient", label_smoothing=smoothing)
        used += proven(model, torch.randn(9, 5, generator=stream), labels, local)
    assert used > 10


@pytest.mark.parametrize("bias", [True, False])
def test_noise_is_estimated_from_what_should_add_up_to_nothing(bias):
    for std in (0.0, 0.01, 1.0):
        ratios = []
        for seed in range(30):
            stream = generator(seed, "noise")
            *_, head = posed(nn.ReLU, seed, bias=bias)
            draw = lambda t, s=stream: t + std * torch.randn(t.shape, generator=s)
            noisy = HeadGradient(
                draw(head.observed), draw(head.observed_bias) if bias else None, 3.0, 8, 1
            )
            ratios.append(noise_variance(noisy) / (3.0 * max(std, 1e-6)) ** 2)
        mean = sum(ratios) / 30
        if std == 0.0:
            assert mean < 1
        else:  # χ² over 12 or 13 sums has a standard deviation of √(2/12)
            assert mean == pytest.approx(1, abs=4 * (2 / 12 / 30) ** 0.5)


def test_pruned_entries_are_masked_on_both_sides():
    latest, work, labels, head = posed(nn.ReLU, 1, size=40)
    assert uploaded(head) is None
    pruned = prune(latest.update.delta, 0.6)
    cut = replace(latest, update=replace(latest.update, delta=pruned))
    mask = uploaded(read_head(cut, work))
    assert torch.equal(mask[0], pruned["2.weight"] != 0)
    assert torch.equal(mask[1], pruned["2.bias"] != 0)
    assert int(pose(cut, work).lower.sum()) == 0  # nothing is certain any more
    counts = torch.bincount(labels, minlength=CLASSES)
    assert asr(eb_gls(View([cut]), work.auxiliary, generator(0)), counts) > 0.8


def test_a_feature_that_no_example_has_is_not_pruned():
    *_, head = posed(nn.Sigmoid, 1)
    dead = head.observed.clone()
    dead[:, 3] = 0
    assert uploaded(replace(head, observed=dead)) is None
    assert uploaded(replace(head, observed=0 * dead)) is None
    dead[2, :5] = 0
    mask = uploaded(replace(head, observed=dead))
    assert torch.equal(mask[0], dead != 0)


@pytest.mark.parametrize("epochs", [2, 5])
def test_counts_are_multiples_of_the_epochs(epochs):
    view, auxiliary, counts = unbalanced(LocalTraining(0.05, 8, epochs=epochs))
    for refine in ("search", "gibbs"):
        guess = eb_gls(view, auxiliary, generator(0), refine=refine)
        assert int(guess.sum()) == 40 * epochs
        assert bool((guess % epochs == 0).all())
        assert asr(guess, counts) > 0.85


def test_shares_are_followed_along_the_way():
    # The true counts explain the update better by the whole path than by its ends.
    view, auxiliary, counts = unbalanced(LocalTraining(0.1, 8, epochs=6))
    work = workspace(view, auxiliary)
    problem = pose(view.latest, work)
    end = end_forward(view.latest, work, auxiliary.inputs)
    trace = Trace(view.latest, work, None, end, problem.basis, problem.start)
    true = counts.double() / 6
    error = lambda moments: float((problem.sketch - moments.means @ true).norm())
    start, end = problem.moments, trace.end_moments()
    solved, _ = solve(view.latest, work)
    assert error(trace.moments(true)) < 0.8 * min(error(start), error(end))
    assert error(solved.moments) < 0.8 * error(start.middle(end))  # where solving begins
    assert solved.uses == 6
    measured = trace.moments(true)
    torch.testing.assert_close(measured.means, shares_along(trace, true))


def shares_along(trace: Trace, counts: Tensor) -> Tensor:
    """Return the mean share of each class, from a sketch at every point of the way."""
    observation, start = trace.observation, trace.work.part(start_of)
    steps = steps_per_client(observation)
    shifts = simulate(start, counts / counts.sum(), observation.local, steps)
    before, raws = trace.work.part(auxiliary_forward), []
    for way, shift in path(shifts, trace.end.logits.double() - start.logits, POINTS):
        features = before.features + way * (trace.end.features - before.features)
        there = Forward(features, start.logits + shift)
        raws.append(trace.basis.scaled(trace.basis.raw(there, start.labels, 0.0)))
    return class_means(torch.stack(raws).mean(dim=0), start.labels, len(counts)).T


def test_to_follow_a_part_of_the_auxiliary_examples_is_nearly_as_good(monkeypatch):
    view, auxiliary, counts = unbalanced(LocalTraining(0.1, 8, epochs=6))
    whole = asr(eb_gls(view, auxiliary, generator(0)), counts)
    monkeypatch.setattr(trajectory, "MOST_ROWS", len(auxiliary.labels) // 3)
    monkeypatch.setattr(trajectory, "PER_CLASS", 1)
    rows = []
    followed = trajectory.followed
    monkeypatch.setattr(
        "adversary.labels.trace.followed", lambda *of: rows.append(followed(*of)) or rows[-1]
    )
    part = asr(eb_gls(view, auxiliary, generator(0)), counts)
    assert len(rows) == 1 + ROUNDS
    assert all(len(some) < 0.6 * len(auxiliary.labels) for some in rows)
    assert part > whole - 0.05


def test_gibbs_draws_from_its_own_generator_alone():
    view, auxiliary, _ = unbalanced(LocalTraining(0.1, 40, upload="gradient"))
    coins = torch.get_rng_state()
    draw = lambda seed: eb_gls(view, auxiliary, generator(seed), refine="gibbs", chains=4, steps=60)
    assert torch.equal(draw(1), draw(1))
    assert torch.equal(torch.get_rng_state(), coins)


def test_a_head_without_a_bias_is_attacked_all_the_same():
    rates = []
    for seed in range(10):
        latest, work, labels, _ = posed(nn.Tanh, seed, size=30, bias=False, scale=0.3)
        guess = eb_gls(View([latest]), work.auxiliary, generator(0))
        rates.append(asr(guess, torch.bincount(labels, minlength=CLASSES)))
    assert sum(rates) / 10 > 0.9
