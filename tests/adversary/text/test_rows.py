from functools import partial

import pytest
import torch

from adversary.text.rows import moved
from tests.adversary.text.small import PAD, Small, adam, gradient, sgd, texts, trained

STEPS = {
    "sgd": sgd,
    "small lr": partial(sgd, lr=1e-3),
    "momentum": partial(sgd, momentum=0.9),
    "adam": adam,
    "decay": partial(sgd, decay=1e-3),
    "adamw": partial(adam, decay=0.01),
}


def used(inputs):
    return torch.isin(torch.arange(256), inputs[inputs != PAD])


@pytest.mark.theorem
@pytest.mark.parametrize("name", STEPS)
def test_moved_rows_are_the_tokens_used(name):
    model, (inputs, targets) = Small(), texts(6)
    delta = trained(model, inputs, targets, STEPS[name])["tokens.weight"]
    sent = model.tokens.weight.detach()
    found = moved(delta, sent)
    assert torch.equal(found.rows, used(inputs))
    if name in ("decay", "adamw"):
        assert found.shrink < 0
    else:
        assert not delta[~used(inputs)].any()  # to the bit
        assert found.shrink == found.threshold == 0


@pytest.mark.theorem
def test_decay_is_taken_out_where_most_rows_are_used():
    model, (inputs, targets) = Small(), texts(80)
    assert 0.6 < used(inputs).float().mean() < 1
    delta = trained(model, inputs, targets, STEPS["decay"], batch=40)["tokens.weight"]
    assert torch.equal(moved(delta, model.tokens.weight.detach()).rows, used(inputs))


@pytest.mark.parametrize("std", [1e-6, 1e-4])
def test_noise_on_every_row_is_not_taken_for_tokens(std):
    model, (inputs, targets) = Small(), texts(4)
    rows = gradient(model, inputs, targets)["tokens.weight"]
    noise = std * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
    sent = model.tokens.weight.detach()
    found = moved(rows + noise, sent).rows
    assert (found == used(inputs)).float().mean() > 0.99
    assert moved(noise, sent).rows.float().mean() < 0.01


def test_an_update_that_moves_nothing_names_nothing():
    assert not moved(torch.zeros(9, 4), torch.ones(9, 4)).rows.any()


def test_a_row_that_is_zero_itself_does_not_hide_decay():
    """The row of the pad is zero in many models, and has nothing to shrink."""
    model, (inputs, targets) = Small(), texts(4)
    with torch.no_grad():
        model.tokens.weight[PAD] = 0
    delta = trained(model, inputs, targets, STEPS["decay"])["tokens.weight"]
    assert torch.equal(moved(delta, model.tokens.weight.detach()).rows, used(inputs))
