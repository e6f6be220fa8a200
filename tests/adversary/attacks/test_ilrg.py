import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adversary.attacks.ilrg import embedded, ilrg, solve_counts
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining
from tests.adversary.label_cases import asr, hand, unbalanced, untrained
from tests.builders import bilinear, observe, plain_gradient


@pytest.mark.parametrize("case", ["A", "B"])
def test_worked_example(case):
    # P̂ = 1/3 everywhere and b·N = (−2/3, 1/3, 1/3): n_j = N/3 − b_j.
    view, auxiliary = hand(case)
    assert ilrg(view, auxiliary, generator(0)).tolist() == [2, 1, 1]


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any),
    st.sampled_from([torch.nn.ReLU, torch.nn.Tanh]),
    st.sampled_from([0.0, 0.3]),
)
def test_an_untrained_model_gives_the_counts(counts, activation, smoothing):
    view, auxiliary = untrained(counts, activation, label_smoothing=smoothing)
    assert ilrg(view, auxiliary, generator(0)).tolist() == counts


def test_the_rows_of_a_single_example_are_its_features():
    model = bilinear(4, features=6)
    inputs = torch.rand(1, 4)
    view = observe(plain_gradient(model, inputs, torch.tensor([2])), 1, sent=model)
    delta, sent = view.latest.update.delta, view.latest.sent
    p = embedded(*(of[f"2.{name}"] for of in (delta, sent) for name in ("weight", "bias")))
    with torch.no_grad():
        expected = model(inputs).softmax(1).double().expand(4, 4)
    torch.testing.assert_close(p, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("balanced", [0.0, 1e-7])
def test_a_class_in_balance_has_no_embedding_to_speak_of(balanced):
    model = bilinear(3, features=2)
    gradient = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    gradient["2.weight"] = torch.tensor([[-1.0, -1.0], [1.0, 0.5], [0.0, 0.5]])
    gradient["2.bias"] = torch.tensor([-1.0, 1.0 - balanced, balanced])
    sent = model.state_dict()
    p = embedded(gradient["2.weight"], gradient["2.bias"], 1000 * sent["2.weight"], sent["2.bias"])
    assert bool(torch.isfinite(p).all())
    if not balanced:  # the bias alone
        torch.testing.assert_close(p[2], sent["2.bias"].double().softmax(0))


def pseudo_inverse(p, sums, total):
    """The paper's equations as they stand."""
    classes = len(p)
    left = torch.cat([torch.ones(1, classes).double(), p.T - torch.eye(classes).double()])
    right = torch.cat([torch.tensor([float(total)]).double(), sums])
    return torch.linalg.pinv(left) @ right


@given(st.integers(2, 8), st.integers(1, 50), st.integers(0, 10**6), st.floats(0, 1))
def test_the_square_system_has_the_solution_of_the_pseudo_inverse(classes, total, seed, noise):
    stream = generator(seed, "ilrg")
    p = (2 * torch.randn(classes, classes, generator=stream)).double().softmax(1)
    draws = torch.randint(classes, (total,), generator=stream)
    n = torch.bincount(draws, minlength=classes).double()
    sums = p.T @ n - n + noise * torch.randn(classes, generator=stream).double()
    counts = solve_counts(p, sums, total)
    torch.testing.assert_close(counts, pseudo_inverse(p, sums, total), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("absorbing", [2, 4])
def test_a_singular_system_has_it_too(absorbing):
    # Classes that are sure of themselves add nothing to any entry: their counts are open.
    p = torch.full((4, 4), 0.25).double()
    p[:absorbing] = torch.eye(4)[:absorbing].double()
    sums = torch.tensor([0.5, 0.5, -0.5, -0.5]).double() * (4 - absorbing)
    counts = solve_counts(p, sums, 6)
    torch.testing.assert_close(counts, pseudo_inverse(p, sums, 6))


def test_several_local_steps():
    view, auxiliary, counts = unbalanced(LocalTraining(lr=0.05, batch_size=8, epochs=4))
    assert asr(ilrg(view, auxiliary, generator(0)), counts) > 0.7


def test_a_head_without_a_bias_is_read_by_its_rows():
    assert ilrg(*hand("A", bias=False), generator(0)).tolist() == [2, 1, 1]
