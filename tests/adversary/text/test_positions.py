from functools import partial

import pytest
import torch

from adversary.text.positions import order
from tests.adversary.text.small import BOS, PAD, Small, gradient, sgd, texts, trained


def read(delta):
    """The tokens whose rows moved, and the positions, as `order` takes them."""
    tokens, places = delta["tokens.weight"], delta["positions.weight"]
    ids = tokens.any(dim=1).nonzero().squeeze(1)
    return order(ids, tokens[ids], places[places.any(dim=1)])


def one_text(seed):
    """The longest of a few texts, with a token that comes twice."""
    inputs, targets = texts(4, seed=seed)
    row = (inputs != PAD).sum(dim=1).argmax()
    inputs, targets = inputs[row : row + 1], targets[row : row + 1]
    inputs[0, 3] = targets[0, 2] = inputs[0, 1]
    return inputs, targets


@pytest.mark.theorem
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("steps", [0, 1, 10])
def test_one_text_is_read_in_order(steps, seed):
    model, (inputs, targets) = Small(seed=seed).double(), one_text(seed)
    delta = gradient(model, inputs, targets)
    if steps:
        step = partial(sgd, momentum=0.5)
        delta = trained(model, inputs, targets, step, steps=steps, batch=1)
    found = read(delta)
    assert found.ids.tolist() == [BOS, *inputs[0, 1:][inputs[0, 1:] != PAD].tolist()]
    assert found.distance < 1e-5
    assert found.residual < 1e-8


@pytest.mark.theorem
def test_two_texts_are_told_from_one():
    model, (inputs, targets) = Small().double(), texts(2)
    found = read(gradient(model, inputs, targets))
    assert max(found.distance, found.residual) > 0.1


@pytest.mark.theorem
def test_renamed_tokens_rename_the_answer():
    model, (inputs, targets) = Small().double(), one_text(1)
    delta = gradient(model, inputs, targets)
    turn = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    renamed = torch.empty_like(delta["tokens.weight"])
    renamed[turn] = delta["tokens.weight"]
    assert torch.equal(read({**delta, "tokens.weight": renamed}).ids, turn[read(delta).ids])


def test_rows_that_did_not_move_are_refused():
    with pytest.raises(ValueError, match="must move both tables, got 0 rows of tokens and 2"):
        order(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.ones(2, 4))
