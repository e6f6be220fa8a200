from dataclasses import replace

import pytest
import torch

from adversary.attacks.eb_gls import eb_gls
from adversary.attacks.eb_gls_sim import distance, eb_gls_sim, nearest
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, View
from tests.adversary.label_cases import asr, unbalanced, untrained

LONG = LocalTraining(lr=0.2, batch_size=8, epochs=10)


def test_a_single_step_is_answered_as_by_eb_gls():
    view, auxiliary, _ = unbalanced(LocalTraining(lr=0.1, batch_size=40, upload="gradient"))
    guess = eb_gls_sim(view, auxiliary, generator(0))
    assert torch.equal(guess, eb_gls(view, auxiliary, generator(0)))


def test_long_training_is_answered_better_with_rehearsals():
    with_, without = [], []
    for seed in range(4):
        view, auxiliary, counts = unbalanced(LONG, seed=seed)
        with_.append(asr(eb_gls_sim(view, auxiliary, generator(seed)), counts))
        without.append(asr(eb_gls(view, auxiliary, generator(seed)), counts))
    assert sum(with_) > sum(without) + 4 * 0.02


def test_labels_are_used_once_an_epoch():
    view, auxiliary = untrained([9, 0, 3, 4], lr=1e-3, batch_size=4, epochs=3, upload="weights")
    guess = eb_gls_sim(view, auxiliary, generator(0), simulations=2)
    assert guess.tolist() == [27, 0, 9, 12]


def test_a_cohorts_sum_cannot_be_rehearsed():
    view, auxiliary, _ = unbalanced(LONG)
    latest = replace(view.latest, update=replace(view.latest.update, num_clients=2))
    guess = eb_gls_sim(View([latest]), auxiliary, generator(0))
    assert torch.equal(guess, eb_gls(View([latest]), auxiliary, generator(0)))


def test_rehearsals_come_from_the_generator():
    view, auxiliary, _ = unbalanced(LONG)
    guess = eb_gls_sim(view, auxiliary, generator(0), simulations=2)
    assert torch.equal(guess, eb_gls_sim(view, auxiliary, generator(0), simulations=2))


def test_no_rehearsals_are_refused():
    view, auxiliary, _ = unbalanced(LONG)
    with pytest.raises(ValueError, match="simulations must be at least 1, got 0"):
        eb_gls_sim(view, auxiliary, generator(0), simulations=0)


def test_distance_is_over_all_layers_and_no_counters():
    left = {"a": torch.zeros(2), "b": torch.ones(1), "steps": torch.tensor(3)}
    right = {"a": torch.ones(2), "b": torch.zeros(1), "steps": torch.tensor(9)}
    assert distance(left, right) == 3


def test_the_nearest_rehearsals_decide():
    near, far = torch.tensor([3, 1]), torch.tensor([0, 4])
    assert nearest([(10.0, far), (1.0, near)], 4).tolist() == [3, 1]
    assert nearest([(1.0, far), (1.0, torch.tensor([4, 0]))], 4).tolist() == [2, 2]
    # A fifth is not looked at.
    assert nearest([(1.0, near)] * 4 + [(1.0, far)] * 4, 4).tolist() == [3, 1]
