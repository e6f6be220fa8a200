import itertools
from collections.abc import Sequence

import pytest
import torch

from adversary.linkage.counts import evidence, precision
from adversary.linkage.features import BUCKETS, cosines, evenly, sketched, whitened
from adversary.linkage.guess import checked, packed, unpacked
from adversary.linkage.sequences import sequences, threshold
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, Observation, Update, View

CLEAR = torch.tensor([[1.0, 0.0, 0.9, 0.1], [0.0, 1.0, 0.2, 0.8], [0.9, 0.2, 1.0, 0.1],
                      [0.1, 0.8, 0.1, 1.0]], dtype=torch.float64)  # fmt: skip


def cohort_of(rows, *, name="w", round_=1) -> View:
    """Return the view of one round with an upload per row."""
    local = LocalTraining(0.1, 1, upload="gradient")
    sent = {name: torch.zeros_like(rows[0])}
    seen = [
        Observation(sent, Update(round_, f"upload-{k}", {name: row}, 1), local)
        for k, row in enumerate(rows)
    ]
    return View(seen[:1], [seen])


@pytest.mark.worked
def test_each_upload_continues_the_sequence_that_it_is_like():
    found, means = sequences(CLEAR, [2, 2])
    assert found.tolist() == [0, 1, 0, 1]
    assert means.tolist() == [[0.9, 0.2], [0.1, 0.8]]
    crossed = CLEAR[[0, 1, 3, 2]][:, [0, 1, 3, 2]]
    assert sequences(crossed, [2, 2])[0].tolist() == [0, 1, 1, 0]


@pytest.mark.worked
def test_no_two_uploads_of_a_round_share_a_sequence_and_a_stranger_begins_one():
    scores = torch.zeros(5, 5, dtype=torch.float64)
    scores[0, 2] = scores[2, 0] = 1.0
    scores[0, 3] = scores[3, 0] = 0.9  # likes the same one, but less
    scores[1, 4] = scores[4, 1] = 0.95
    found, _ = sequences(scores, [2, 3])
    assert found.tolist() == [0, 1, 0, 2, 1]


@pytest.mark.twin
def test_an_assignment_is_the_best_of_all():
    for seed in range(20):
        scores = torch.rand(7, 7, dtype=torch.float64, generator=generator(seed, "scores"))
        scores = (scores + scores.T) / 2
        limit = threshold(scores, [4, 3])
        above = (scores[4:, :4] - limit).clamp(min=0)
        best = max(
            sum(float(above[k, place]) for k, place in enumerate(order))
            for order in itertools.permutations(range(4), 3)
        )
        found, _ = sequences(scores, [4, 3])
        got = sum(float(above[k, int(c)]) for k, c in enumerate(found[4:]) if int(c) < 4)
        assert got == pytest.approx(best)
        assert len(set(found[4:].tolist())) == 3


@pytest.mark.worked
def test_sequences_grow_over_rounds_and_scores_are_means_over_their_uploads():
    rows = torch.eye(3, dtype=torch.float64)[[0, 1, 1, 0, 0, 2]]
    found, means = sequences(rows @ rows.T, [2, 2, 2])
    assert found.tolist() == [0, 1, 1, 0, 0, 2]
    assert means.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_uploads_that_say_nothing_get_an_answer():
    for sizes in ([1, 1], [2, 3], [3, 0, 2]):
        count = sum(sizes)
        found, means = sequences(torch.zeros(count, count, dtype=torch.float64), sizes)
        assert len(found) == count
        assert len(means) == sizes[-1]


@pytest.mark.worked
def test_the_threshold_lies_between_strangers_and_pairs_of_one_client():
    scores = torch.full((20, 20), 0.0, dtype=torch.float64)
    scores += 0.05 * torch.randn(20, 20, dtype=torch.float64, generator=generator(0, "noise"))
    scores[torch.arange(10), torch.arange(10, 20)] += 0.8
    scores = scores.triu(1) + scores.triu(1).T
    assert 0.3 < threshold(scores, [10, 10]) < 0.5


def test_a_guess_is_unpacked_as_it_was_packed():
    scores = torch.rand(2, 3, dtype=torch.float64)
    guess = packed(scores, torch.tensor([0, 1, 2, 0, 3]))
    assert checked(guess).shape == (3, 5)
    got, chains = unpacked(guess)
    assert torch.equal(got, scores)
    assert chains.tolist() == [0, 1, 2, 0, 3]


@pytest.mark.parametrize(
    "guess", [torch.zeros(3), torch.zeros(1, 4), torch.zeros(5, 4), torch.full((2, 4), torch.nan)]
)
def test_what_can_be_no_guess_is_refused(guess):
    with pytest.raises(ValueError, match="guess: must be a finite matrix"):
        checked(guess)


@pytest.mark.worked
def test_deviations_have_length_one_and_no_mean():
    rows = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]])
    found = sketched(cohort_of(rows), evenly)
    off = rows - rows.mean(dim=0)
    assert torch.allclose(found, off / off.norm(dim=1, keepdim=True))
    variance = off.square().mean(dim=0)
    white = off / (variance + variance.mean()).sqrt()
    white = white / white.norm(dim=1, keepdim=True)
    assert torch.allclose(sketched(cohort_of(rows), whitened), white)


@pytest.mark.twin
def test_a_sketch_keeps_cosines():
    rows = torch.randn(6, 3 * BUCKETS, generator=generator(0, "rows"))
    rows[3] = rows[0] + 0.5 * rows[1]
    off = rows - rows.mean(dim=0)
    exact = cosines(off / off.norm(dim=1, keepdim=True))
    found = cosines(sketched(cohort_of(rows), evenly))
    assert float((found - exact).abs().max()) < 5 / BUCKETS**0.5
    assert exact[0, 3] > 0.5


def test_an_upload_that_is_not_finite_says_nothing_and_spoils_no_other():
    rows = torch.randn(4, 5, generator=generator(0, "rows"))
    broken = rows.clone()
    broken[1, 2] = torch.nan
    found = sketched(cohort_of(broken), evenly)
    assert not found[1].any()
    assert torch.allclose(found[[0, 2, 3]], sketched(cohort_of(rows[[0, 2, 3]]), evenly))
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity"):
        sketched(cohort_of(torch.full((2, 3), torch.nan)), evenly)


def direct(shares, alpha: Sequence[float]):
    """Return the evidence of one pair, from Pólya's urn: one label after the other."""
    import math

    def log_p(counts):
        total, drawn, result = sum(alpha), 0, 0.0
        for c, count in enumerate(counts):
            for k in range(round(count)):
                result += math.log((alpha[c] + k) / (total + drawn))
                drawn += 1
        return result

    both = [a + b for a, b in zip(*shares, strict=True)]
    return log_p(both) - log_p(shares[0]) - log_p(shares[1])


@pytest.mark.twin
def test_label_evidence_is_that_of_an_urn():
    counts = torch.tensor([[64.0, 0.0, 0.0], [48.0, 16.0, 0.0], [0.0, 32.0, 32.0]]).double()
    shares = counts / 64
    alpha = precision(shares).tolist()
    found = evidence(shares)
    for i, j in itertools.product(range(3), repeat=2):
        expected = direct((counts[i].tolist(), counts[j].tolist()), alpha)
        assert float(found[i, j]) == pytest.approx(expected, abs=1e-6)
    assert found[0, 0] > found[0, 1] > found[0, 2]


def test_an_upload_whose_labels_cannot_be_read_is_no_evidence():
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]).double()
    assert evidence(shares)[2].abs().max() < 1e-9
