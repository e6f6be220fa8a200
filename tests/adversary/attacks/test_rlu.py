import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adversary.attacks.rlu import rlu, solve_counts
from adversary.labels.trajectory import Start, simulate
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from tests.adversary.label_cases import (
    asr,
    client,
    hand,
    unbalanced,
    untrained,
)

FORMS = [
    {},
    {"momentum": 0.9},
    {"proximal_mu": 2.0},
    {"label_smoothing": 0.2},
    {"momentum": 0.5, "proximal_mu": 1.0, "label_smoothing": 0.1},
]


@pytest.mark.parametrize("case", ["A", "B"])
def test_worked_example(case):
    # E = 1/3 everywhere and b·N = (−2/3, 1/3, 1/3): n_j = N/3 − b_j.
    view, auxiliary = hand(case)
    assert rlu(view, auxiliary, generator(0)).tolist() == [2, 1, 1]


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any),
    st.sampled_from([torch.nn.ReLU, torch.nn.Tanh]),
    st.sampled_from([0.0, 0.3]),
)
def test_an_untrained_model_gives_the_counts(counts, activation, smoothing):
    view, auxiliary = untrained(counts, activation, label_smoothing=smoothing)
    assert rlu(view, auxiliary, generator(0)).tolist() == counts


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any), st.integers(0, 10**6))
def test_predictions_that_depend_on_the_label_alone_give_the_counts(counts, seed):
    classes = len(counts)
    stream = generator(seed, "rlu")
    head = torch.nn.Linear(classes, classes)
    head.weight.data = torch.randn(classes, classes, generator=stream) + torch.eye(classes)
    head.bias.data = torch.randn(classes, generator=stream)
    labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
    local = LocalTraining(0.1, len(labels), upload="gradient")
    view = client(head, torch.eye(classes)[labels], labels, local)
    auxiliary = Auxiliary(head, classes, inputs=torch.eye(classes), labels=torch.arange(classes))
    assert rlu(view, auxiliary, generator(0)).tolist() == counts


def same_input(counts, local):
    """A client whose examples are all the same: the logits of all move alike."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    x = torch.tensor([[0.5, -1.0, 2.0]]).double()
    head = torch.nn.Linear(3, len(counts)).double()
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator(0, "same")).double()
    view = client(head, x.expand(len(labels), 3), labels, local)
    everything = x.expand(len(counts), 3).contiguous()
    return view, Auxiliary(head, len(counts), inputs=everything, labels=torch.arange(len(counts)))


@pytest.mark.parametrize("form", FORMS)
def test_the_simulation_equals_training_where_all_features_are_the_same(form):
    counts = [3, 0, 1, 2]
    local = LocalTraining(lr=0.1, batch_size=6, epochs=5, **form)
    view, auxiliary = same_input(counts, local)
    sent, delta = view.latest.sent, view.latest.update.delta
    x = auxiliary.inputs[0]
    logits = (sent["weight"] @ x + sent["bias"]).expand(4, 4)
    start = Start(logits, torch.arange(4), float(x.square().sum()) + 1)
    shifts = simulate(start, torch.tensor(counts).double() / 6, local, 5)
    assert shifts.shape == (6, 4)
    torch.testing.assert_close(shifts[-1], delta["weight"] @ x + delta["bias"])


@pytest.mark.parametrize("form", [FORMS[0], FORMS[3]])
@pytest.mark.parametrize("epochs", [2, 15])
def test_several_large_steps_give_the_counts_where_the_simulation_is_exact(form, epochs):
    counts = [3, 0, 1, 2]
    local = LocalTraining(lr=0.05, batch_size=6, epochs=epochs, **form)
    view, auxiliary = same_input(counts, local)
    assert rlu(view, auxiliary, generator(0)).tolist() == [epochs * n for n in counts]


@pytest.mark.parametrize("form", FORMS)
def test_several_local_steps(form):
    view, auxiliary, counts = unbalanced(LocalTraining(lr=0.02, batch_size=8, epochs=4, **form))
    assert asr(rlu(view, auxiliary, generator(0)), counts) > 0.85


def test_simulating_helps():
    gains = []
    for seed in range(5):
        local = LocalTraining(lr=0.1, batch_size=8, epochs=8)
        view, auxiliary, counts = unbalanced(local, seed=seed)
        with_, without = (
            asr(rlu(view, auxiliary, generator(0), rounds=rounds), counts) for rounds in (5, 0)
        )
        gains.append(with_ - without)
    assert sum(gains) / 5 > 0.05


def test_a_class_without_auxiliary_examples_is_taken_for_the_mean_of_all():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]]).double()
    start = Start(logits, torch.tensor([0, 1]), 1.0)
    p = logits.softmax(1)
    torch.testing.assert_close(start.confidence, torch.stack([p[0], p[1], p.mean(0)]))


@given(st.integers(2, 8), st.integers(1, 50), st.integers(0, 10**6))
def test_consistent_sums_are_solved(classes, total, seed):
    stream = generator(seed, "rlu")
    e = torch.randn(classes, classes, generator=stream).double().softmax(1)
    draws = torch.randint(classes, (total,), generator=stream)
    n = torch.bincount(draws, minlength=classes).double()
    torch.testing.assert_close(solve_counts(e, e.T @ n - 0.9 * n, total, 0.9), n, rtol=0, atol=1e-4)


def test_a_head_without_a_bias_is_read_by_its_rows():
    assert rlu(*hand("A", bias=False), generator(0)).tolist() == [2, 1, 1]


def test_what_cannot_be_attacked_is_said():
    with pytest.raises(ValueError, match="rlu: points must be at least 1, got 0"):
        rlu(*hand("A"), generator(0), points=0)
