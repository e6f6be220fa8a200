"""Texts of a batch, prefix by prefix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from adversary.attacks.dager import dager
from adversary.text.dager import candidates, fitting, grow
from adversary.text.dictionary import dictionary
from adversary.text.sites import inputs_at, sites_of
from adversary.text.spans import span_of, widest_gap
from tests.adversary.text.cases import answered, auxiliary_of, build, observed, unpadded
from tests.adversary.text.language import as_tuples, gradient, language, prefixes_of, texts


def searched(model, ids):
    update = gradient(model, ids)
    first, _, later = sites_of(model, ids)[:3]
    words = dictionary(model, first, torch.arange(64), 8)
    spans = [span_of(site.rows(update)) for site in (first, later)]
    bases = [span.cut(widest_gap(span)[0]).basis for span in spans]
    choices = candidates(words, bases[0], 1e-4, 8)
    return (lambda prefixes: inputs_at(model, later, prefixes)[:, -1]), choices, bases[1]


@settings(max_examples=12)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 4))
def test_every_text_is_recovered_below_the_cliff(seed, count):
    ids = texts(seed, count)
    prefixes = prefixes_of(ids)
    tree = fitting(*searched(language(seed), ids))
    if len(prefixes) < 32 - 2:
        leaves = {
            it for it in as_tuples(ids) if all(it != p[: len(it)] or it == p for p in prefixes)
        }
        assert set(tree.prefixes) == prefixes
        assert set(tree.texts) == leaves


def test_the_rounding_of_a_gradient_does_not_matter():
    """No tolerance may cut between the residuals of pairs that stand there.

    Tokens stand at several positions here: that all of them are used does not show a lost pair.
    The draws are those, of 72, of which the weakest pair is beyond a power of ten alone.
    """
    model = build(width=64, length=16).eval()
    auxiliary = auxiliary_of(model, shape=(16,))
    for draw in (18, 19, 42, 54, 55):
        stream = Generator().manual_seed(draw)
        ids = texts(draw % 12, 1, vocabulary=10, length=16)
        size = 10 ** (draw % 6 / 5 - 6.25)  # relative, of a gradient in float32: 1e-7 and more
        delta = {
            name: value * (1 + size * torch.randn(value.shape, generator=stream))
            for name, value in gradient(model, ids).items()
        }
        answer, remarks = answered(dager, [observed(model, delta, 1)], auxiliary)
        assert not remarks
        assert answer == unpadded(ids)


@pytest.mark.worked
def test_a_saturated_span_ends_the_search():
    inputs, choices, _ = searched(language(0), texts(0, 3))
    everything = torch.eye(32, dtype=torch.float64)
    assert grow(inputs, [torch.arange(64)] * 8, everything, 0.1) is None
    assert grow(inputs, choices, everything[:0], 0.1).texts == []
