"""Members' losses fall by more than others'."""

import pytest
from torch import Generator

from adversary.attacks.loss_drop import loss_drop
from fedsim.core.types import Candidates, View
from tests.adversary.text.cases import auxiliary_of, build, gradient, observed, trained
from tests.adversary.text.language import targets, texts


def scores(attack, model, observation, ids):
    auxiliary = auxiliary_of(model, candidates=Candidates(ids, targets(ids)))
    return attack(View([observation]), auxiliary, Generator())


@pytest.mark.worked
def test_members_losses_fall_more():
    model, ids = build(), texts(0, 12)
    seen = observed(model, trained(model, ids[:4]), 4, epochs=5, momentum=0.9)
    drop = scores(loss_drop, model, seen, ids)
    assert drop[:4].min() > drop[4:].max()
    of_gradient = scores(loss_drop, model, observed(model, gradient(model, ids[:4]), 4), ids)
    assert of_gradient[:4].mean() > of_gradient[4:].mean()
