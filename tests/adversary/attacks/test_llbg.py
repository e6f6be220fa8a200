import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adversary.attacks.llbg import fill, llbg
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary
from tests.adversary.label_cases import assert_equivariant, hand, untrained
from tests.builders import auxiliary_of, bilinear, observe, plain_gradient


@pytest.mark.parametrize("case", ["A", "B"])
def test_worked_example(case):
    # b·N = (−2/3, 1/3, 1/3): one label of class 0; then 1/3 each, as n = N/C − b says.
    view, auxiliary = hand(case)
    assert llbg(view, auxiliary, generator(0)).tolist() == [2, 1, 1]


def test_a_class_the_model_is_sure_of():
    # Six labels of class 0 with probability 0.8: b = 6·(−0.2, 0.1, 0.1). A label that weighs 1
    # leaves room for other classes, one that weighs 0.2 does not.
    head = torch.nn.Linear(3, 3)
    head.weight.data = torch.eye(3) * torch.tensor(8.0).log()
    torch.nn.init.zeros_(head.bias)
    labels = torch.zeros(6, dtype=torch.long)
    view = observe(plain_gradient(head, torch.eye(3)[labels], labels), 6, sent=head)
    auxiliary = Auxiliary(head, 3, inputs=torch.eye(3), labels=torch.arange(3))
    assert llbg(view, auxiliary, generator(0)).tolist() == [3, 2, 1]
    assert llbg(view, auxiliary, generator(0), confidence="auxiliary").tolist() == [6, 0, 0]


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any),
    st.sampled_from([torch.nn.ReLU, torch.nn.Tanh]),
    st.sampled_from([0.0, 0.3]),
)
def test_an_untrained_model_gives_the_counts(counts, activation, smoothing):
    view, auxiliary = untrained(counts, activation, label_smoothing=smoothing)
    assert llbg(view, auxiliary, generator(0)).tolist() == counts


def test_many_small_steps_are_one():
    counts = [9, 0, 3, 4]
    local = {"lr": 1e-4, "batch_size": 4, "epochs": 3, "upload": "weights"}
    view, auxiliary = untrained(counts, **local)
    assert llbg(view, auxiliary, generator(0)).tolist() == [3 * n for n in counts]


def one_by_one(level, rise, total):
    level, counts = level.clone(), torch.zeros(len(level), dtype=torch.long)
    for _ in range(total):
        lowest = int(level.argmin())
        counts[lowest] += 1
        level[lowest] += rise[lowest]
    return counts


@given(st.integers(1, 9), st.integers(0, 200), st.integers(0, 10**6))
def test_the_closed_form_equals_the_loop(classes, total, seed):
    stream = generator(seed, "fill")
    level = 20 * torch.randn(classes, generator=stream).double()
    rise = 0.001 + torch.rand(classes, generator=stream).double()
    assert torch.equal(fill(level, rise, total), one_by_one(level, rise, total))


@pytest.mark.parametrize("size", [1, 3])
def test_more_present_classes_than_labels_never_give_more_labels(size):
    bias = -torch.arange(1.0, 7.0)
    view = observe({"weight": torch.zeros(6, 2), "bias": bias}, size)
    counts = llbg(view, auxiliary_of(torch.nn.Linear(2, 6), 6), generator(0))
    assert counts.tolist() == [0] * (6 - size) + [1] * size


def test_a_head_without_a_bias_is_read_by_its_rows():
    assert llbg(*hand("A", bias=False), generator(0)).tolist() == [2, 1, 1]


def test_what_cannot_be_attacked_is_said():
    model = bilinear(3)
    view = observe(plain_gradient(model, torch.rand(2, 4), torch.tensor([0, 1])), 2, sent=model)
    with pytest.raises(ValueError, match="auxiliary needs inputs and labels, got none"):
        llbg(view, auxiliary_of(model, 3), generator(0), confidence="auxiliary")


@pytest.mark.parametrize("confidence", ["none", "auxiliary"])
def test_other_names_of_the_classes_change_only_the_names(confidence):
    assert_equivariant(lambda *known: llbg(*known, confidence=confidence))
