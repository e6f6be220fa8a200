from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks.batch_labels import exchanges, label_hypotheses
from adversary.inversion.matching import raced
from adversary.inversion.priors import data_range
from adversary.inversion.problems import problem_of
from adversary.inversion.settings import Settings
from adversary.labels.posterior import Evidence
from fedsim.core.errors import Remark
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary
from tests.builders import observe, plain_gradient

CLASSES, SHAPE = 4, (1, 6, 6)
with global_stream(0, "labels"):
    MODEL = nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(180, CLASSES)
    )
KNOWN = torch.rand(40, *SHAPE, generator=generator(0, "known"))
AUXILIARY = Auxiliary(MODEL, CLASSES, inputs=KNOWN, labels=torch.arange(40) % CLASSES)


def client(labels):
    x = torch.rand(len(labels), *SHAPE, generator=generator(0, "client"))
    return observe(plain_gradient(MODEL, x, torch.tensor(labels)), len(labels), sent=MODEL)


def naive(evidence, counts):
    """Every exchange and how much less likely it is, by the quadratic itself."""
    cost = lambda n: float(n @ evidence.quadratic @ n / 2 - evidence.linear @ n)
    unit = torch.eye(len(counts), dtype=torch.float64)
    moves = [
        (cost(moved) - cost(counts), moved)
        for a in range(len(counts))
        for b in range(len(counts))
        if a != b and bool(((moved := counts - unit[a] + unit[b]) >= evidence.lower).all())
    ]
    return sorted(moves, key=lambda it: it[0])


@pytest.mark.parametrize("seed", range(3))
def test_exchanges_are_the_likeliest_ones(seed):
    draw = torch.randn(4, 4, dtype=torch.float64, generator=generator(seed))
    counts = torch.tensor([2.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    lower = torch.tensor([2.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    evidence = Evidence(draw @ draw.T, draw[0], lower, 4)
    expected = [moved for cost, moved in naive(evidence, counts)[:3] if cost <= 10]
    answers = exchanges(evidence, counts, most=3)
    assert [it.tolist() for it in answers] == [it.tolist() for it in expected]
    certain = Evidence(1e6 * torch.eye(4, dtype=torch.float64), 1e6 * counts, lower, 4)
    assert exchanges(certain, counts, most=3) == []


def test_the_first_hypothesis_is_the_answer_and_others_differ_in_one_label():
    rows = label_hypotheses(client([0, 0, 1, 3]), AUXILIARY, generator(0), most=4)
    counts = torch.stack([torch.bincount(row, minlength=CLASSES) for row in rows])
    assert bool(((counts[1:] - counts[0]).abs().sum(dim=1) == 2).all())
    assert len(rows) <= 4
    assert len(label_hypotheses(client([2]), AUXILIARY, generator(0), most=4)) == 1
    blind = replace(AUXILIARY, inputs=None, labels=None, input_shape=SHAPE)
    assert len(label_hypotheses(client([0, 1]), blind, generator(0), most=4)) == 1
    with pytest.raises(ValueError, match="hypotheses: must be at least 1, got 0"):
        label_hypotheses(client([2]), AUXILIARY, generator(0), most=0)


@pytest.mark.parametrize("place", range(3))
def test_the_lowest_loss_has_the_right_labels(place):
    view = client([0, 1])
    rows = torch.tensor([[0, 2], [1, 3], [2, 3]])
    rows[place] = torch.tensor([0, 1])
    problem = problem_of(view.latest, AUXILIARY)
    settings = Settings(iterations=60, optimiser="adam", start="grey")
    box = data_range(AUXILIARY)
    with pytest.warns(Remark, match=f"hypothesis {place + 1} of 3 has the lowest matching loss"):
        best = raced(problem, settings, rows, generator(0), box=box)
    assert best == place
