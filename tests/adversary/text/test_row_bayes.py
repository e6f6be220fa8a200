import pytest
import torch

from adversary.text.moments import moments
from adversary.text.row_bayes import (
    WIDE,
    Evidence,
    candidates,
    counts,
    drifted,
    noise_variance,
)
from adversary.text.total import likeliest_total
from tests.adversary.text.small import BOS, EOS, Small, gradient, texts

SIZE = 256


def setting(count, *, seed=0, dtype=torch.float64):
    """A model, its moments from 300 texts, and the targets and head gradient of other texts."""
    model = Small(seed=seed).to(dtype)
    inputs, targets = texts(300 + count, seed=7)
    with torch.no_grad():
        features = model.features(inputs[:300])
    real = targets[:300] >= 0
    made = moments(features[real], model.head.weight.detach(), targets[:300][real])
    mine = inputs[300:], targets[300:]
    all_ = gradient(model, *mine)
    labels = mine[1][mine[1] >= 0]
    return made, labels, all_["head.weight"].double(), all_["tokens.weight"].any(dim=1)


def shared(guess, labels):
    return float(torch.minimum(guess, torch.bincount(labels, minlength=SIZE)).sum()) / len(labels)


@pytest.mark.theorem
@pytest.mark.parametrize("count", [1, 3, 8])
def test_counts_of_a_fresh_model_are_nearly_exact_where_tokens_say_nothing_of_the_next(count):
    made, labels, head, _ = setting(count)
    guess = counts(made, Evidence(head), len(labels)).each
    assert int(guess.sum()) == len(labels)
    assert shared(guess, labels) >= 0.9


@pytest.mark.theorem
def test_the_columns_of_a_head_gradient_add_up_to_nothing():
    *_, head, _ = setting(4, dtype=torch.float32)
    assert float(head.sum(dim=0).abs().max()) < 1e-6 * float(head.abs().max()) * SIZE
    noise = 1e-3 * torch.randn(head.shape, generator=torch.Generator().manual_seed(0))
    assert noise_variance(head + noise) == pytest.approx(1e-6, rel=0.5)


@pytest.mark.theorem
def test_the_set_of_tokens_keeps_counts_under_noise():
    made, labels, head, rows = setting(8)
    noise = 3e-3 * torch.randn(head.shape, generator=torch.Generator().manual_seed(0)).double()
    noisy = head + noise
    rows[BOS] = False
    outside = torch.zeros(SIZE, dtype=torch.float64)
    outside[EOS] = 8
    variance = noise_variance(noisy)
    alone = shared(counts(made, Evidence(noisy, noise=variance), len(labels)).each, labels)
    both = Evidence(noisy, rows, outside, variance)
    guess = counts(made, both, len(labels)).each
    assert bool((guess[rows] > 0).all())
    assert shared(guess, labels) > max(0.9, alone)


@pytest.mark.theorem
def test_the_number_of_targets_is_read_off_the_gradient():
    for count in (2, 8, 16):
        made, labels, head, rows = setting(count)
        rows[BOS] = False
        outside = torch.zeros(SIZE, dtype=torch.float64)
        outside[EOS] = count
        total = likeliest_total(made, Evidence(head, rows, outside), 9.0 * count, 3.0 * count**0.5)
        assert total == pytest.approx(len(labels), rel=0.1)


@pytest.mark.theorem
def test_few_rows_are_looked_at_and_the_answer_stays():
    """With a large vocabulary only the likeliest rows are weighed."""
    made, labels, head, _ = setting(2)
    assert 2 * len(labels) + 64 < SIZE
    everything = Evidence(head, torch.ones(SIZE, dtype=torch.bool) & False, torch.ones(SIZE))
    rows = candidates(made, Evidence(head), len(labels))
    assert len(rows) < SIZE
    few = torch.zeros(SIZE, dtype=torch.int64)
    few[rows] = counts(made.at(rows), Evidence(head).at(rows), len(labels)).each
    assert shared(few, labels) > 0.95
    assert torch.equal(few, counts(made, Evidence(head), len(labels)).each)
    assert int(counts(made, everything, 0).each.sum()) == 0


@pytest.mark.theorem
def test_tokens_that_are_no_targets_are_never_counted():
    made, labels, head, rows = setting(2)
    rows[BOS] = False
    guess = counts(made, Evidence(head, rows), 3 * len(labels)).each
    assert not guess[~rows].any()
    assert bool((guess[rows] > 0).all())


@pytest.mark.theorem
@pytest.mark.parametrize("size", [0.5, 8.0])
def test_features_that_drifted_while_a_client_trained_are_read_off_its_rows(size):
    model = Small().double()
    made, labels, head, rows = setting(8)
    inputs, targets = (part[300:] for part in texts(308, seed=7))
    with torch.no_grad():
        features = model.features(inputs)[targets >= 0]
    residuals = (features @ model.head.weight.T).softmax(dim=1).detach()
    residuals[torch.arange(len(labels)), labels] -= 1
    drift = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(1)).double()
    shifted = head + residuals.T @ (size * drift).expand_as(features) / len(labels)
    rows[BOS] = False
    rows[EOS] = True
    observed = Evidence(shifted, rows)
    before = counts(made, observed, len(labels), near=WIDE)
    moved = drifted(made, observed, before, len(labels))
    after = counts(moved, observed, len(labels), near=WIDE)
    assert after.misfit < before.misfit
    assert shared(after.each, labels) >= max(0.9, shared(before.each, labels))


def test_no_targets_give_no_counts_and_one_auxiliary_target_is_refused():
    made, _, head, _ = setting(1)
    assert int(counts(made, Evidence(head), 0).each.sum()) == 0
    with pytest.raises(ValueError, match="at least 2 targets, got 1"):
        moments(torch.ones(1, 4), torch.ones(9, 4), torch.tensor([3]))


@pytest.mark.worked
def test_tokens_that_no_auxiliary_text_holds_share_what_those_held_once_show():
    """Of four targets two tokens stand once: others have (2 + 1)/(4 + 2) of the targets."""
    stream = torch.Generator().manual_seed(0)
    features, weight = (torch.randn(n, 3, generator=stream) for n in (4, 8))
    made = moments(features, weight, torch.tensor([3, 4, 5, 5]))
    assert made.exposure == pytest.approx(8)
    assert made.rates.tolist() == pytest.approx(
        [n / 8 for n in (0.5, 0.5, 0.5, 1.5, 1.5, 2.5, 0.5, 0.5)]
    )
