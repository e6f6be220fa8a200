"""Layers of a token model are found by calling it."""

import pytest
import torch

from adversary.text.dictionary import dictionary
from adversary.text.sites import inputs_at, is_causal, sites_of
from fedsim.core.errors import NotApplicable
from tests.adversary.text.language import language, texts

IDS = torch.tensor([[1, 5, 6, 7]])


@pytest.mark.worked
@pytest.mark.parametrize("fused", [False, True])
def test_maps_that_share_an_input_are_one_site(fused):
    model = language(0, fused=fused)
    sites = sites_of(model, IDS)
    first = [it.name for it in sites[0].weights]
    block = "blocks.0."
    apart = [f"{block}query.weight", f"{block}key.weight", f"{block}value.weight"]
    assert first == ([f"{block}attention.weight"] if fused else apart)
    assert [len(it.weights) for it in sites] == [1 if fused else 3, 1, 1, 1] * 2 + [1]
    assert [it.width for it in sites] == [32, 32, 32, 128] * 2 + [32]


@pytest.mark.worked
def test_a_square_weight_that_is_stored_transposed_is_turned():
    model = language(0)
    weight = model.blocks[0].query.weight.detach().clone()
    model.blocks[0].query = _Transposed(weight.T.contiguous())
    first = sites_of(model, IDS)[0]
    rows = first.rows({"blocks.0.query.weight": model.blocks[0].query.weight.detach()})
    assert first.weights[0].transposed
    assert torch.equal(rows, weight.double())


class _Transposed(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x):
        return x @ self.weight


@pytest.mark.worked
def test_which_layers_see_earlier_tokens_only():
    model = language(0)
    sites = sites_of(model, IDS)
    assert [is_causal(model, it, IDS, 9) for it in sites[:3]] == [False, True, True]
    encoder = language(0, causal=False)
    assert not any(is_causal(encoder, it, IDS, 9) for it in sites_of(encoder, IDS))


@pytest.mark.twin
def test_the_dictionary_holds_what_the_first_layer_takes_of_any_text():
    model, ids = language(1), texts(0, 3)
    first = sites_of(model, ids)[0]
    words = dictionary(model, first, torch.arange(64), 8)
    taken = inputs_at(model, first, ids).double()
    assert torch.allclose(words.vectors[ids, torch.arange(8)], taken, atol=1e-6)


@pytest.mark.worked
def test_a_first_layer_without_positions_has_one_vector_a_token():
    model = language(1, placed=False)
    words = dictionary(model, sites_of(model, IDS)[0], torch.tensor([3, 9]), 8)
    assert words.vectors.shape == (2, 1, 32)
    assert words.pairs(torch.tensor([1])).tolist() == [[9, 0]]


@pytest.mark.worked
def test_a_dictionary_that_does_not_fit_is_refused():
    model = language(1)
    first = sites_of(model, IDS)[0]
    with pytest.raises(NotApplicable, match="dictionary: must have at most"):
        dictionary(model, first, torch.arange(64), 10**6)
