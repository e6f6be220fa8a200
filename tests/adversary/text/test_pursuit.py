"""Pursuit finds what spans a measured subspace, and stops by itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from adversary.text.pursuit import Rules, pursue, strong_directions
from adversary.text.spans import residuals

SEEDS = st.integers(0, 2**16)


def measured(seed, *, atoms=400, width=48, used=10, rank=6, noise=1e-4):
    """Return a dictionary, the atoms that were used, and mixtures of them in units of noise."""
    stream = Generator().manual_seed(seed)
    dictionary = torch.randn(atoms, width, dtype=torch.float64, generator=stream)
    chosen = torch.randperm(atoms, generator=stream)[:used]
    mixing = torch.randn(rank, used, dtype=torch.float64, generator=stream)
    rows = mixing @ dictionary[chosen]
    rows = rows + noise * torch.randn(rows.shape, dtype=torch.float64, generator=stream)
    return dictionary, set(chosen.tolist()), strong_directions(rows / noise)


@settings(max_examples=12)
@given(seed=SEEDS)
def test_fewer_measurements_than_atoms_are_enough_and_the_number_is_not_given(seed):
    dictionary, chosen, directions = measured(seed)
    picks = pursue(directions, dictionary)
    assert picks.explained
    assert set(picks.atoms.tolist()) == chosen


@settings(max_examples=12)
@given(seed=SEEDS)
def test_with_full_rank_it_is_the_span_check(seed):
    dictionary, chosen, directions = measured(seed, rank=10, noise=1e-6)
    basis = directions / directions.norm(dim=1, keepdim=True)
    inside = (residuals(dictionary, basis) < 1e-3).nonzero().flatten().tolist()
    assert set(pursue(directions, dictionary).atoms.tolist()) == set(inside) == chosen


@settings(max_examples=12)
@given(seed=SEEDS)
def test_renaming_atoms_renames_picks(seed):
    dictionary, _, directions = measured(seed)
    order = torch.randperm(len(dictionary), generator=Generator().manual_seed(seed))
    picks = pursue(directions, dictionary[order])
    assert sorted(order[picks.atoms].tolist()) == sorted(
        pursue(directions, dictionary).atoms.tolist()
    )


@settings(max_examples=12)
@given(seed=SEEDS)
def test_noise_alone_has_no_direction_and_no_picks(seed):
    rows = torch.randn(8, 48, dtype=torch.float64, generator=Generator().manual_seed(seed))
    directions = strong_directions(rows)
    assert len(directions) <= 1  # the edge is exceeded by a few hundredths at times
    picks = pursue(directions[:0], torch.eye(48))
    assert picks.explained
    assert not len(picks.atoms)


@pytest.mark.worked
def test_rules_bound_the_picks():
    dictionary, chosen, directions = measured(0)
    few = pursue(directions, dictionary, Rules(most=3))
    assert len(few.atoms) == 3
    assert not few.explained
    groups = torch.arange(len(dictionary)) % 4
    spread = pursue(directions, dictionary, Rules(groups=groups, limit=2))
    assert torch.bincount(groups[spread.atoms], minlength=4).max() <= 2
    banned = torch.zeros(len(dictionary), dtype=torch.float64)
    banned[min(chosen)] = -torch.inf
    assert min(chosen) not in pursue(directions, dictionary, Rules(prior=banned)).atoms.tolist()


@pytest.mark.worked
def test_directions_that_noise_makes_are_dropped():
    rows = 1e4 * torch.eye(3, 20, dtype=torch.float64)
    noise = torch.randn(3, 20, dtype=torch.float64, generator=Generator().manual_seed(0))
    assert len(strong_directions(torch.cat([rows, noise]))) == 3
