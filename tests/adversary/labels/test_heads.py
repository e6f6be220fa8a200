"""Heads of many updates read at once, against heads read one by one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adversary.labels.head import NoHead, read_head
from adversary.labels.heads import one_head, read_heads
from adversary.workspace import workspace
from fedsim.core.types import LocalTraining
from tests.builders import auxiliary_of, bilinear, observe

LOCAL = LocalTraining(lr=0.1, batch_size=4, epochs=2)


def uploads(model, rows, *, seed=0):
    """Views of random uploads, of different numbers of examples."""
    stream = torch.Generator().manual_seed(seed)
    for row in range(rows):
        state = model.state_dict()
        drawn = {k: torch.randn(v.shape, generator=stream) for k, v in state.items()}
        yield observe(drawn, 1 + row, local=LOCAL, sent=model)


@pytest.mark.twin
@given(st.integers(2, 12), st.integers(1, 40), st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_all_at_once_is_one_by_one_to_the_bit(classes, features, rows, bias, seed):
    model = bilinear(classes, bias=bias, features=features)
    auxiliary = auxiliary_of(model, classes)
    views = list(uploads(model, rows, seed=seed))
    heads = read_heads(views, auxiliary)
    alone = [read_head(view.latest, workspace(view, auxiliary)) for view in views]
    assert torch.equal(heads.row_sums, torch.stack([head.row_sums for head in alone]))
    assert heads.total.tolist() == [head.total for head in alone]
    for head, row in zip(alone, heads.row_sums, strict=True):
        assert torch.equal(one_head(head).row_sums[0], row)
        assert head.bias is None or torch.equal(one_head(head).bias[0], head.bias)
    if bias:
        assert torch.equal(heads.bias, torch.stack([head.bias for head in alone]))


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_what_may_be_refused_of_one_is_refused_of_all(value):
    model = bilinear(3)
    views = list(uploads(model, 3))
    delta = views[1].latest.update.delta
    for name in ("2.weight", "2.bias"):
        delta[name][:] = value
    with pytest.raises(ValueError, match="finite" if value else "move the head"):
        read_heads(views, auxiliary_of(model, 3))


def test_an_update_without_a_head_is_refused():
    model = bilinear(3)
    views = list(uploads(model, 2))
    del views[1].latest.update.delta["2.weight"]
    with pytest.raises(NoHead):
        read_heads(views, auxiliary_of(model, 3))
