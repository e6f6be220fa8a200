"""Ranks of gradients of texts in closed form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adversary.text.dictionary import dictionary
from adversary.text.sites import is_causal, sites_of
from adversary.text.spans import (
    above_rounding,
    bipartite_rank,
    residuals,
    span_of,
    widest_gap,
)
from tests.adversary.text.language import closure, gradient, language, pairs_of, prefixes_of, texts

SEEDS = st.integers(0, 2**16)


@settings(max_examples=12)
@given(seed=SEEDS, count=st.integers(1, 3))
def test_rank_of_the_first_layer_is_tokens_plus_positions_less_components(seed, count):
    model, ids = language(seed, double=True), texts(seed, count)
    first = sites_of(model, ids)[0]
    rank, _ = widest_gap(span_of(first.rows(gradient(model, ids))))
    assert rank == bipartite_rank(pairs_of(ids))


@settings(max_examples=12)
@given(seed=SEEDS)
def test_the_span_holds_the_closure_of_the_pairs_and_nothing_else(seed):
    model, ids = language(seed, double=True), texts(seed, 2)
    first = sites_of(model, ids)[0]
    words = dictionary(model, first, torch.arange(64), 8)
    span = span_of(first.rows(gradient(model, ids)))
    inside = residuals(words.vectors, span.cut(widest_gap(span)[0]).basis) < 1e-6
    assert {(int(v), int(i)) for v, i in inside.nonzero()} == closure(pairs_of(ids))


@settings(max_examples=12)
@given(seed=SEEDS)
def test_without_positions_the_rank_is_the_number_of_distinct_tokens(seed):
    model, ids = language(seed, double=True, placed=False), texts(seed, 2)
    rank, _ = widest_gap(span_of(sites_of(model, ids)[0].rows(gradient(model, ids))))
    assert rank == len({token for token, _ in pairs_of(ids)})


@settings(max_examples=12)
@given(seed=SEEDS, count=st.integers(1, 3))
def test_rank_of_later_layers_is_the_number_of_distinct_prefixes(seed, count):
    model, ids = language(seed, double=True), texts(seed, count)
    update = gradient(model, ids)
    for site in sites_of(model, ids):
        if is_causal(model, site, torch.tensor([[1, 5, 6]]), 9) and site.width == 32:
            assert above_rounding(span_of(site.rows(update))) == len(prefixes_of(ids))


@pytest.mark.worked
def test_a_component_is_a_token_at_positions_that_share_tokens():
    pairs = [(7, 0), (8, 1), (7, 1), (9, 3)]
    assert closure(pairs) == {(7, 0), (8, 0), (7, 1), (8, 1), (9, 3)}
    assert bipartite_rank(pairs) == (2 + 2 - 1) + (1 + 1 - 1)
    assert bipartite_rank([]) == 0


@pytest.mark.worked
def test_residual_of_a_zero_vector_is_one():
    basis = torch.eye(3, dtype=torch.float64)[:2]
    vectors = torch.tensor([[0.0, 0, 0], [1, 1, 0], [0, 0, 2], [3, 0, 4]])
    assert residuals(vectors, basis).tolist() == pytest.approx([1, 0, 1, 0.8])


@pytest.mark.worked
def test_a_span_without_a_gap_has_all_directions():
    assert widest_gap(span_of(torch.eye(4))) == (4, pytest.approx(1 / 3e-8))
    assert widest_gap(span_of(torch.zeros(4, 3))) == (0, 1.0)
    graded = torch.diag(torch.tensor([1.0, 0.5, 1e-4, 9e-5]))
    assert widest_gap(span_of(torch.cat([graded, graded * 0], dim=1)))[0] in (2, 4)
