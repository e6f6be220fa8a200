import pytest
import torch

from adversary.attacks.baselines import random, uniform
from adversary.labels.counts import expected_overlap
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining
from tests.adversary.label_cases import asr, known
from tests.builders import observe

AUXILIARY = known(torch.nn.Linear(2, 3), 3, torch.ones(1, 2))
EMPTY = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}


@pytest.mark.parametrize(("size", "sorted_counts"), [(7, [2, 2, 3]), (2, [0, 1, 1])])
def test_uniform_is_as_even_as_can_be(size, sorted_counts):
    counts = uniform(observe(EMPTY, size), AUXILIARY, generator(0))
    assert sorted(counts.tolist()) == sorted_counts


def test_uniform_favours_no_class():
    extra = sum(uniform(observe(EMPTY, 4), AUXILIARY, generator(s)) - 1 for s in range(600))
    assert int(extra.min()) > 150


def test_random_scores_the_chance_level():
    true = torch.tensor([5, 2, 1])
    chance = float(expected_overlap(8, 3)[true].sum()) / 8
    views = (random(observe(EMPTY, 8), AUXILIARY, generator(seed)) for seed in range(1000))
    scores = torch.tensor([asr(counts, true) for counts in views])
    assert float(scores.mean()) == pytest.approx(chance, abs=4 * float(scores.std()) / 1000**0.5)


@pytest.mark.parametrize("attack", [random, uniform])
def test_every_use_of_an_example_counts(attack):
    view = observe(EMPTY, 5, local=LocalTraining(lr=0.1, batch_size=2, epochs=3))
    assert int(attack(view, AUXILIARY, generator(0)).sum()) == 15
