import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adversary.attacks.idlg import idlg
from fedsim.core.rng import generator
from tests.builders import auxiliary_of, observe, plain_gradient

ACTIVATIONS = [torch.nn.ReLU, torch.nn.Tanh, torch.nn.Sigmoid, torch.nn.SiLU]


@given(
    st.integers(2, 8),
    st.integers(0, 10**6),
    st.sampled_from(ACTIVATIONS),
    st.booleans(),
    st.floats(0.1, 20),
)
def test_one_example_gives_its_label_away(num_classes, seed, activation, bias, scale):
    if num_classes == 2 and not bias:
        activation = torch.nn.Sigmoid  # without a bias, two classes need non-negative features
    stream = generator(seed, "idlg")
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 6), activation(), torch.nn.Linear(6, num_classes, bias=bias)
    ).double()
    for parameter in model.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=stream).double()
    inputs = torch.randn(1, 4, generator=stream).double()
    with torch.no_grad():
        features, probability = model[:2](inputs), model(inputs).softmax(1)
    label = seed % num_classes
    # A sure model or dead features leave no gradient, and so no evidence, in floating point.
    if float(probability.max()) > 1 - 1e-6 or float(features.norm()) < 1e-6:
        return
    gradient = plain_gradient(model, inputs, torch.tensor([label]))
    counts = idlg(observe(gradient, 1), auxiliary_of(model, num_classes), generator(0))
    assert counts.tolist() == [int(i == label) for i in range(num_classes)]


@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_gets_one_label_as_often_as_it_is_long(bias):
    model = torch.nn.Linear(3, 4, bias=bias)
    gradient = plain_gradient(model, torch.rand(6, 3), torch.tensor([2, 2, 2, 2, 2, 1]))
    counts = idlg(observe(gradient, 6), auxiliary_of(model, 4), generator(0))
    assert counts.tolist() == [0, 0, 6, 0]
