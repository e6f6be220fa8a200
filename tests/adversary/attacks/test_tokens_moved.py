"""Membership of whole texts by the tokens whose rows moved."""

import pytest
import torch

from adversary.attacks.tokens_moved import tokens_moved
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Candidates, View
from tests.adversary.text.cases import (
    adapted,
    auxiliary_of,
    build,
    gradient,
    observed,
)
from tests.adversary.text.language import targets, texts


def scores(attack, model, observation, ids):
    auxiliary = auxiliary_of(model, candidates=Candidates(ids, targets(ids)))
    return attack(View([observation]), auxiliary, torch.Generator())


@pytest.mark.worked
def test_a_members_tokens_have_all_moved():
    model, ids = build(), texts(0, 12)
    moved = scores(tokens_moved, model, observed(model, gradient(model, ids[:2]), 2), ids)
    assert moved[:2].tolist() == [1, 1]
    assert moved[2:].mean() < 0.5
    used = set(ids[:2].flatten().tolist()) - {0, 1, 2}
    own = set(ids[5].tolist()) - {0, 1, 2}
    assert moved[5] == pytest.approx(len(own & used) / len(own))


@pytest.mark.worked
def test_a_table_that_is_frozen_or_the_head_too_is_refused():
    ids = texts(0, 2)
    frozen, tied = adapted(build()), build(tie=True)
    for model in (frozen, tied):
        seen = observed(model, gradient(model, ids), 2)
        with pytest.raises(NotApplicable):
            scores(tokens_moved, model, seen, ids)
