import pytest
import torch
from torch import nn

from adversary.games.gradients import batch_gradients
from adversary.games.summary import Beside, Summary, mean_input
from adversary.projection import Reduce
from fedsim.core.rng import generator, global_stream

MODELS = {
    "mlp": lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)),
    "linear": lambda: nn.Linear(6, 3),
    "no bias first": lambda: nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 3)),
    "no bias": lambda: nn.Linear(6, 3, bias=False),
}


def gradients(name, *, batch, count=20):
    """Return shapes, flat gradients of many batches, and their records."""
    with global_stream(0, name):
        model = MODELS[name]()
    inputs = torch.randn(count, batch, 6, generator=generator(0, "inputs", batch))
    labels = torch.randint(3, (count, batch), generator=generator(0, "labels", batch))
    flat = batch_gradients(model, model.state_dict(), inputs, labels)
    return {n: v.shape for n, v in model.named_parameters()}, flat, inputs, labels


def summary_of(shapes, most=100):
    return Summary(shapes, 3, most, generator(0, "summary"))


@pytest.mark.parametrize("name", ["mlp", "linear"])
def test_one_records_input_and_label_are_read_exactly(name):
    shapes, flat, inputs, labels = gradients(name, batch=1)
    summary = summary_of(shapes)
    columns = summary(flat)
    assert columns.shape == (20, summary.cells)
    norms, head, read = columns.split([len(shapes), 3, 6], dim=1)
    torch.testing.assert_close(read, inputs[:, 0], rtol=1e-4, atol=1e-5)
    assert torch.equal(head.argmin(dim=1), labels[:, 0])  # p − y is negative for the label only
    parts = flat.split([shape.numel() for shape in shapes.values()], dim=1)
    torch.testing.assert_close(norms, torch.stack([part.norm(dim=1) for part in parts], dim=1))


def test_of_several_records_a_mean_weighted_by_their_errors_is_read():
    errors = torch.randn(2, 4, 5, generator=generator(0, "errors"))  # batches, records, units
    inputs = torch.randn(2, 4, 6, generator=generator(0, "inputs"))
    bias = errors.sum(dim=1)
    read = mean_input(torch.einsum("nbu,nbf->nuf", errors, inputs), bias)
    for place in range(2):
        weights = errors[place] @ bias[place] / bias[place].square().sum()
        assert float(weights.sum()) == pytest.approx(1, abs=1e-4)
        torch.testing.assert_close(read[place], weights @ inputs[place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_an_input_is_read_at_any_scale_and_nothing_off_nothing(scale):
    shapes, flat, inputs, _ = gradients("mlp", batch=1)
    read = summary_of(shapes)(scale * flat)[:, -6:]
    expected = inputs[:, 0] if scale else torch.zeros(20, 6)
    torch.testing.assert_close(read, expected, rtol=1e-3, atol=1e-4)
    lonely = mean_input(torch.ones(1, 2, 3), torch.tensor([[1e-38, 0.0]]))
    assert torch.isfinite(lonely).all()


def test_the_first_layer_with_a_bias_is_read_and_a_model_without_has_norms_only():
    shapes, flat, _, _ = gradients("no bias first", batch=1)
    assert summary_of(shapes)(flat).shape == (20, 3 + 3 + 6)
    shapes, flat, _, _ = gradients("no bias", batch=1)
    torch.testing.assert_close(summary_of(shapes)(flat), flat.norm(dim=1, keepdim=True))


def test_a_convolution_gives_its_mean_patch_and_normalisation_is_no_layer_to_read():
    shapes = {
        "norm.weight": (4,), "norm.bias": (4,), "conv.weight": (2, 4, 3, 3), "conv.bias": (2,)
    }  # fmt: skip
    shapes = {name: torch.Size(shape) for name, shape in shapes.items()}
    summary = Summary(shapes, 3, 100, generator(0, "summary"))
    assert summary.cells == 4 + 36  # four norms, no head, a patch
    flat = torch.randn(5, 8 + 72 + 2, generator=generator(0, "flat"))
    expected = mean_input(flat[:, 8:80].view(5, 2, 36), flat[:, 80:])
    torch.testing.assert_close(summary(flat)[:, 4:], expected)


def test_wide_inputs_are_projected_and_a_projection_of_uploads_stands_before_their_summary():
    shapes, flat, _, _ = gradients("mlp", batch=2)
    summary, narrow = summary_of(shapes), summary_of(shapes, most=4)
    assert narrow.cells == summary.cells - 2
    assert torch.equal(narrow(flat)[:, -4:], narrow.reduce(summary(flat)[:, -6:]))
    reduce = Reduce([shape.numel() for shape in shapes.values()], 20, generator(0, "reduce"))
    for projection, uploads in ((None, flat), (reduce, reduce(flat))):
        beside = Beside(projection, summary)
        evidence = beside.evidence(beside(flat), 2, 0.5)
        assert beside(flat).shape == (20, beside.cells)
        assert torch.equal(evidence.uploads, uploads)
        read = torch.cat([evidence.norms, evidence.readings], dim=1)
        assert torch.equal(read, summary(flat))
        assert (evidence.batch, evidence.weight) == (2, 0.5)
