"""Sketches are linear, and their moments are those of per-example gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adversary.labels import covariances, moments
from adversary.labels.head import Forward, HeadGradient, forward
from adversary.labels.moments import Moments, Sketch, fit, measure, start_moments
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from tests.builders import work_at

CLASSES, FEATURES, KNOWN = 4, 6, 80
STREAM = generator(0, "moments")
INPUTS = torch.randn(KNOWN, 5, generator=STREAM).double()
LABELS = torch.arange(KNOWN) % CLASSES
THEIRS = torch.randn(9, 5, generator=STREAM).double()
THEIR_LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3])
MASK = (
    torch.rand(CLASSES, FEATURES, generator=STREAM) > 0.4,
    torch.tensor([True, False, True, True]),
)
FORMS = pytest.mark.parametrize(
    ("bias", "smoothing", "masked"),
    [(True, 0.0, False), (False, 0.0, False), (True, 0.3, False), (True, 0.1, True),
     (False, 0.0, True)],
)  # fmt: skip


def model_of(*, bias: bool) -> nn.Sequential:
    head = nn.Linear(FEATURES, CLASSES, bias=bias)
    model = nn.Sequential(nn.Linear(5, FEATURES), nn.Tanh(), head)
    stream = generator(1, "moments")
    for parameter in model.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=stream).double()
    return model


def each(moments_: Moments) -> Tensor:
    """Return the covariance of every class."""
    return torch.stack([moments_.covariance(one) for one in torch.eye(CLASSES).double()])


def gradients(
    model: nn.Sequential, inputs: Tensor, labels: Tensor, smoothing: float
) -> list[Tensor]:
    """Return each example's gradient of the head, [weight, bias], by autograd."""
    head = list(model[2].parameters())
    rows = []
    for x, y in zip(inputs, labels, strict=True):
        loss = functional.cross_entropy(model(x[None]), y[None], label_smoothing=smoothing)
        weight, *bias = torch.autograd.grad(loss, head)
        rows.append(torch.cat([weight, *(b.unsqueeze(1) for b in bias)], dim=1))
    return rows


def head_of(gradient: Tensor, *, bias: bool, mask=None) -> HeadGradient:
    weight, rest = gradient[:, :FEATURES], gradient[:, FEATURES] if bias else None
    if mask is not None:
        weight, rest = weight * mask[0], None if rest is None else rest * mask[1]
    return HeadGradient(weight, rest, 1.0, 1, 1)


def fitted(bias, smoothing, mask=None) -> tuple[Auxiliary, Sketch, Moments, Forward]:
    auxiliary = Auxiliary(model_of(bias=bias), CLASSES, inputs=INPUTS, labels=LABELS)
    there = forward(work_at(auxiliary, {}), auxiliary.model.state_dict(), INPUTS)
    return auxiliary, *fit(auxiliary, there, smoothing, bias=bias, mask=mask), there


def mask_of(*, bias: bool, masked: bool):
    return (MASK[0], MASK[1] if bias else None) if masked else None


@FORMS
def test_the_sketch_of_a_sum_is_the_sum_of_the_sketched_shares(bias, smoothing, masked):
    mask = mask_of(bias=bias, masked=masked)
    auxiliary, sketch, _, _ = fitted(bias, smoothing, mask)
    rows = gradients(auxiliary.model, THEIRS, THEIR_LABELS, smoothing)
    there = forward(work_at(auxiliary, {}), auxiliary.model.state_dict(), THEIRS)
    shares = sketch.scaled(sketch.raw(there, THEIR_LABELS, smoothing))
    for share, row in zip(shares, rows, strict=True):
        torch.testing.assert_close(share, sketch.of_gradient(head_of(row, bias=bias, mask=mask)))
    whole = sketch.of_gradient(head_of(torch.stack(rows).sum(0), bias=bias, mask=mask))
    torch.testing.assert_close(shares.sum(dim=0), whole)


@FORMS
def test_moments_are_those_of_per_example_gradients(bias, smoothing, masked):
    mask = mask_of(bias=bias, masked=masked)
    auxiliary, sketch, measured, _ = fitted(bias, smoothing, mask)
    rows = gradients(auxiliary.model, INPUTS, LABELS, smoothing)
    shares = torch.stack([sketch.of_gradient(head_of(r, bias=bias, mask=mask)) for r in rows])
    for c in range(CLASSES):
        own = shares[c == LABELS].numpy()
        np.testing.assert_allclose(measured.means[:, c], own.mean(0), atol=1e-12)
        np.testing.assert_allclose(each(measured)[c], np.cov(own.T), atol=1e-12)
    assert measured.counts.tolist() == [KNOWN / CLASSES] * CLASSES


@FORMS
def test_noise_goes_through_the_sketch(bias, smoothing, masked):
    mask = mask_of(bias=bias, masked=masked)
    _, sketch, _, _ = fitted(bias, smoothing, mask)
    units = torch.eye(CLASSES * (FEATURES + bias)).double().unflatten(1, (CLASSES, -1))
    linear = torch.stack([sketch.of_gradient(head_of(u, bias=bias, mask=mask)) for u in units])
    torch.testing.assert_close(sketch.noise, linear.T @ linear)


def test_coordinates_are_in_the_size_of_their_spread():
    _, sketch, measured, _ = fitted(True, 0.0)
    variances = measured.covariance(torch.ones(CLASSES).double() / CLASSES).diagonal()
    assert 0.02 < float(variances.min()) <= float(variances.max()) < 1.1
    assert len(sketch.scale) == int(sketch.varying.sum()) == len(measured.means)


def test_row_sums_and_bias_are_always_in_the_sketch(monkeypatch):
    monkeypatch.setattr(moments, "DIMENSIONS", CLASSES)  # no room for directions
    _, sketch, _, there = fitted(True, 0.0)
    raw = sketch.raw(there, LABELS, 0.0).unflatten(1, (CLASSES, -1))
    p = there.probabilities - torch.eye(CLASSES).double()[LABELS]
    torch.testing.assert_close(raw[:, :, 0], p * there.sums.unsqueeze(1) / FEATURES**0.5)
    torch.testing.assert_close(raw[:, :, -1], p)


def test_where_there_are_too_many_classes_covariances_are_pooled(monkeypatch):
    _, sketch, apart, there = fitted(True, 0.0)
    shares = sketch.scaled(sketch.raw(there, LABELS, 0.0))
    monkeypatch.setattr(covariances, "POOLED", 0)
    pooled = measure(shares, LABELS, CLASSES)
    torch.testing.assert_close(pooled.means, apart.means)
    # Equally many examples per class: the pooled covariance is the mean of all.
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0]).double()
    torch.testing.assert_close(pooled.covariance(weights), 3.5 * each(apart).mean(dim=0))
    expected = sum(w * s for w, s in zip(weights, each(apart), strict=True))
    torch.testing.assert_close(apart.covariance(weights), expected)


def test_covariances_of_few_examples_need_no_matrix_per_class(monkeypatch):
    _, sketch, written, there = fitted(True, 0.0)
    shares = sketch.scaled(sketch.raw(there, LABELS, 0.0))
    shares[:, 1] = LABELS.double()  # varies within no class
    written = measure(shares, LABELS, CLASSES)
    monkeypatch.setattr(covariances, "WRITTEN", 0)
    monkeypatch.setattr(covariances, "FEW", len(LABELS))
    summed = measure(shares, LABELS, CLASSES)
    assert isinstance(written.covariances, covariances.Matrices)
    assert isinstance(summed.covariances, covariances.Residuals)
    torch.testing.assert_close(summed.means, written.means)
    torch.testing.assert_close(each(summed), each(written), rtol=1e-5, atol=1e-5)
    assert float(each(summed)[0, 1, 1]) == pytest.approx(1)


def test_even_counts_share_their_covariance():
    _, _, measured, _ = fitted(True, 0.0)
    for count in (2.0, 7.5):
        weights = measured.weights(torch.full((CLASSES,), count).double())
        torch.testing.assert_close(measured.even_covariance(count), measured.covariance(weights))
    assert len(measured.kept) == 1


def test_a_class_of_one_example_varies_as_all_do():
    shares = torch.randn(7, 2, generator=generator(0, "one example")).double()
    labels = torch.tensor([0, 1, 1, 1, 2, 2, 2])
    measured = measure(shares, labels, 3).covariances.each
    pooled = (2 * measured[1] + 2 * measured[2]) / 4
    torch.testing.assert_close(measured[0], pooled)


def test_the_middle_of_two_models():
    _, sketch, first, there = fitted(True, 0.0)
    second = measure(2 * sketch.scaled(sketch.raw(there, LABELS, 0.0)), LABELS, CLASSES)
    middle = first.middle(second)
    torch.testing.assert_close(middle.means, 1.5 * first.means)
    torch.testing.assert_close(each(middle), 2.5 * each(first))
    assert torch.equal(middle.counts, first.counts)


@pytest.mark.parametrize("bias", [True, False])
def test_a_global_model_is_measured_as_the_protocol_says(bias):
    for smoothing in (0.0, 0.1):
        auxiliary, sketch, measured, _ = fitted(bias, smoothing)
        local = LocalTraining(0.1, 1, label_smoothing=smoothing)
        work = work_at(auxiliary, auxiliary.model.state_dict(), local)
        again, moments_ = start_moments(work)
        assert torch.equal(again.scale, sketch.scale)
        assert torch.equal(each(moments_), each(measured))
