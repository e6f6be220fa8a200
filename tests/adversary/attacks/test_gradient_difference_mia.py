from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks.gradient_difference_mia import gradient_difference_mia
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates, LocalTraining, View
from tests.adversary import member_cases as cases
from tests.adversary.label_cases import client, zero_head
from tests.builders import observe, plain_gradient


def scores(view, known=cases.KNOWN, **options):
    return gradient_difference_mia(view, known, generator(0), **options)


@pytest.mark.parametrize("local", [cases.GRADIENT, LocalTraining(0.1, 16)])
@pytest.mark.parametrize("total", ["sum", "mean"])
def test_it_is_the_difference_of_two_squared_lengths(local, total):
    inputs, labels = cases.RECORDS[:16], cases.LABELS[:16]
    view = client(cases.MODEL, inputs, labels, local)
    asked = cases.KNOWN.candidates
    g = cases.own_gradients(cases.MODEL, asked.inputs, asked.labels)
    u = g[:16].sum(dim=0) if total == "sum" else g[:16].mean(dim=0)
    expected = u.square().sum() - (u - g).square().sum(dim=1)
    torch.testing.assert_close(scores(view, total=total), expected, rtol=1e-3, atol=1e-3)


def orthogonal():
    """Return six records whose gradients are orthogonal, and the view of who has the first two."""
    model = nn.Sequential(zero_head(6, 3, bias=False))
    inputs, labels = torch.eye(6) * torch.arange(1.0, 7).unsqueeze(1), torch.arange(6) % 3
    view = observe(plain_gradient(model, inputs[:2], labels[:2]), 2, sent=model)
    return view, Auxiliary(model, 3, candidates=Candidates(inputs, labels))


def test_of_orthogonal_gradients_the_sign_tells_members():
    view, known = orthogonal()
    lengths = torch.arange(1.0, 7).double() ** 2 * 2 / 3  # ‖p − e_y‖² = 2/3 for three even classes
    torch.testing.assert_close(scores(view, known), lengths * torch.tensor([1, 1, -1, -1, -1, -1]))


def test_with_the_mean_only_the_length_is_left():
    view, known = orthogonal()
    lengths = torch.arange(1.0, 7).double() ** 2 * 2 / 3
    found = scores(view, known, total="mean")
    expected = lengths * torch.tensor([0, 0, -1, -1, -1, -1])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_sum_needs_the_number_of_examples():
    view, known = orthogonal()
    latest = view.latest
    untold = View([replace(latest, update=replace(latest.update, num_examples=None))])
    assert scores(untold, known, total="mean").shape == (6,)
    with pytest.raises(ValueError, match="num_examples: must be told by the client, got none"):
        scores(untold, known)


@pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS])
def test_members_are_found(local):
    found = cases.aurocs(gradient_difference_mia, local=local)
    assert float(found.mean()) > 0.6
