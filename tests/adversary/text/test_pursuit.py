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
    return dictionary, set(chosen.tolist()), rows / noise


@settings(max_examples=12)
@given(seed=SEEDS)
def test_fewer_measurements_than_atoms_are_enough_and_the_number_is_not_given(seed):
    dictionary, chosen, rows = measured(seed)
    picks = pursue(rows, dictionary)
    assert picks.explained
    assert set(picks.atoms.tolist()) == chosen


@settings(max_examples=12)
@given(seed=SEEDS)
def test_with_full_rank_it_is_the_span_check(seed):
    dictionary, chosen, rows = measured(seed, rank=10, noise=1e-6)
    basis = strong_directions(rows, len(rows), 48)
    inside = (residuals(dictionary, basis) < 1e-3).nonzero().flatten().tolist()
    assert set(pursue(rows, dictionary).atoms.tolist()) == set(inside) == chosen


@settings(max_examples=12)
@given(seed=SEEDS)
def test_renaming_atoms_renames_picks(seed):
    dictionary, _, rows = measured(seed)
    order = torch.randperm(len(dictionary), generator=Generator().manual_seed(seed))
    picks = pursue(rows, dictionary[order])
    assert sorted(order[picks.atoms].tolist()) == sorted(pursue(rows, dictionary).atoms.tolist())


@settings(max_examples=12)
@given(seed=SEEDS)
def test_noise_alone_has_hardly_a_pick(seed):
    stream = Generator().manual_seed(seed)
    rows = torch.randn(8, 48, dtype=torch.float64, generator=stream)
    dictionary = torch.randn(400, 48, dtype=torch.float64, generator=stream)
    assert (
        len(pursue(rows, dictionary).atoms) <= 3
    )  # three standard deviations are exceeded at times
    assert not len(pursue(rows[:0], dictionary).atoms)


@settings(max_examples=12)
@given(seed=SEEDS)
def test_many_noisy_measurements_are_as_good_as_few_exact_ones(seed):
    dictionary, chosen, rows = measured(seed, rank=150, noise=0.3)
    picks = pursue(rows, dictionary)
    assert picks.explained
    assert set(picks.atoms.tolist()) == chosen


@pytest.mark.worked
def test_rules_bound_the_picks():
    dictionary, chosen, rows = measured(0)
    few = pursue(rows, dictionary, Rules(most=3))
    assert len(few.atoms) == 3
    assert not few.explained
    groups = torch.arange(len(dictionary)) % 4
    spread = pursue(rows, dictionary, Rules(groups=groups, limit=2))
    assert torch.bincount(groups[spread.atoms], minlength=4).max() <= 2
    banned = torch.zeros(len(dictionary), dtype=torch.float64)
    banned[min(chosen)] = -torch.inf
    assert min(chosen) not in pursue(rows, dictionary, Rules(prior=banned)).atoms.tolist()


@pytest.mark.worked
def test_directions_that_noise_makes_are_dropped():
    rows = 1e4 * torch.eye(3, 20, dtype=torch.float64)
    noise = torch.randn(3, 20, dtype=torch.float64, generator=Generator().manual_seed(0))
    assert len(strong_directions(torch.cat([rows, noise]), 6, 20)) == 3
