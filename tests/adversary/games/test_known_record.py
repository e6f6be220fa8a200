import math

import pytest
import torch
from scipy.stats import norm

from adversary.games.evidence import Evidence
from adversary.games.known_record import cosine, record_scores
from adversary.games.learn import Knowledge
from adversary.games.predictors import choose
from adversary.games.scores import auroc, information
from fedsim.core.rng import generator
from fedsim.core.secrets import Rules
from tests.adversary.games.game_cases import error, evidence, flat_noise, played, told

DIMS, BATCH = 8, 4
COVARIANCE = (0.5 * torch.eye(DIMS) + 2.0).double()  # one direction that all entries share
MIX = torch.linalg.cholesky(COVARIANCE).T.float()
STEP = 0.3 * flat_noise(1, DIMS, "step")[0] + 0.2  # from the gradient without to that with
CENTRE = 5 * flat_noise(1, DIMS, "centre")[0]


def others(count, *names):
    """Return the share of the others: Gaussian, with correlated entries."""
    return CENTRE + flat_noise(count, DIMS, "others", *names) @ MIX


def attribute_toy(count, *names, scale=1.0, told_others=False):
    """Return evidence of a record whose attribute moves its gradient by a step."""
    secrets = torch.arange(count) % 2
    without = flat_noise(count, DIMS, "record", *names)
    both = torch.stack([without, without + BATCH * STEP], dim=1)
    rest = others(count, *names)
    uploads = scale * (both[torch.arange(count), secrets] / BATCH + rest)
    known_rest = rest * BATCH / (BATCH - 1) if told_others else None
    return Evidence(uploads, BATCH, 1 / BATCH, both[:, :, None], known_rest), secrets


def separation(weights, step, covariance=COVARIANCE):
    """Return the distance, in standard deviations, of two Gaussians along some weights."""
    step = step.double()
    return float(weights @ step / (weights @ covariance @ weights).sqrt())


def value(score, evidence, secrets):
    found = score(evidence)
    return auroc(found[:, 1] - found[:, 0], secrets == 1)


def gap(found, mu):
    """Return how many standard errors an AUROC is from that of two Gaussians at a distance."""
    return (found.value - norm.cdf(mu / 2**0.5)) / error(found)


def test_two_ratios_are_as_exact_as_what_they_know_of_the_noise():
    shadows, trials = attribute_toy(4000, "shadows"), attribute_toy(2000, "trials")
    scores = record_scores(*shadows)
    best = separation(torch.linalg.solve(COVARIANCE, STEP.double()), STEP)
    entrywise = separation(STEP / COVARIANCE.diagonal(), STEP)
    assert 0.3 < entrywise < best - 0.4 < 2
    # 3.5 standard errors
    assert abs(gap(value(scores["whitened"], *trials), best)) < 3.5
    assert abs(gap(value(scores["ratio"], *trials), entrywise)) < 3.5
    assert value(scores["cosine"], *trials).value < value(scores["ratio"], *trials).value + 0.02


def test_probabilities_after_calibration_hold_the_information_of_the_toy():
    (evidence, secrets), trials = attribute_toy(4000, "shadows"), attribute_toy(4000, "trials")
    scores = record_scores(evidence.part(slice(3000)), secrets[:3000])
    chosen = choose(scores, evidence.part(slice(3000, None)), secrets[3000:])
    assert chosen.name == "whitened"
    found = information(chosen.log_probabilities(trials[0]), trials[1])
    weights = torch.linalg.solve(COVARIANCE, STEP.double())
    asked = trials[0].uploads - trials[0].hypotheses.mean(dim=(1, 2)) / BATCH - CENTRE
    odds = asked.double() @ weights  # of one against zero, exactly
    true = torch.stack([-odds, odds], dim=1).div(2).log_softmax(dim=1)
    assert found.value == pytest.approx(information(true, trials[1]).value, abs=0.02)


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_a_defense_that_scales_an_update_hides_nothing(scale):
    plain, trials = (attribute_toy(800, name) for name in ("shadows", "trials"))
    hidden, seen = (attribute_toy(800, name, scale=scale) for name in ("shadows", "trials"))
    expected = record_scores(*plain)
    for name, score in record_scores(*hidden, through=scale).items():
        same = value(score, *seen).value, value(expected[name], *trials).value
        assert same[0] == pytest.approx(same[1], abs=0.002)


def member_toy(count, *names, shift):
    """Return evidence of a record that may be there; where it is not, others' mean is shifted."""
    secrets = torch.arange(count) % 2
    record = (BATCH * STEP).expand(count, -1)
    there = (secrets == 1)[:, None]
    uploads = others(count, *names) + torch.where(there, record / BATCH, shift)
    return Evidence(uploads, BATCH, 1 / BATCH, record[:, None, None]), secrets


@pytest.mark.parametrize("shift", [torch.zeros(DIMS), -STEP, flat_noise(1, DIMS, "elsewhere")[0]])
def test_an_absent_record_has_the_mean_of_uploads_without_it(shift):
    scores = record_scores(*member_toy(4000, "shadows", shift=shift))
    step = STEP - shift
    best = separation(torch.linalg.solve(COVARIANCE, step.double()), step)
    entrywise = separation(step / COVARIANCE.diagonal(), step)
    trials = member_toy(2000, "trials", shift=shift)
    assert abs(gap(value(scores["whitened"], *trials), best)) < 3.5
    assert abs(gap(value(scores["ratio"], *trials), entrywise)) < 3.5


def source_toy(count, *names):
    secrets = torch.arange(count) % 2
    uploads = torch.stack([others(count, k, *names) for k in range(2)], dim=1)
    uploads[torch.arange(count), secrets] += STEP
    record = (BATCH * STEP).expand(count, 1, 1, -1)
    return Evidence(uploads, BATCH, 1 / BATCH, record), secrets


def test_of_two_clients_the_holder_is_told_with_twice_the_evidence():
    scores = record_scores(*source_toy(4000, "shadows"))
    trials = source_toy(2000, "trials")
    best = separation(torch.linalg.solve(COVARIANCE, STEP.double()), STEP)
    entrywise = separation(STEP / COVARIANCE.diagonal(), STEP)
    # The record at one of two places: the odds are N(±μ², 2μ²), as of a distance of √2 μ.
    assert abs(gap(value(scores["whitened"], *trials), 2**0.5 * best)) < 3.5
    assert abs(gap(value(scores["ratio"], *trials), 2**0.5 * entrywise)) < 3.5


def test_of_an_unknown_label_all_are_weighed():
    def toy(count, *names):
        secrets, label = torch.arange(count) % 2, torch.arange(count) // 2 % 3
        each = 6 * flat_noise(3 * count, DIMS, "labels", *names).view(count, 1, 3, DIMS)
        both = torch.cat([each, each + BATCH * STEP], dim=1)
        own = both[torch.arange(count), secrets, label]
        uploads = own / BATCH + flat_noise(count, DIMS, "rest", *names)
        return Evidence(uploads, BATCH, 1 / BATCH, both), secrets

    def exact(evidence):
        apart = evidence.uploads[:, None, None] - evidence.hypotheses / BATCH
        return (-apart.square().sum(dim=3) / 2).logsumexp(dim=2)

    shadows, trials = toy(3000, "shadows"), toy(3000, "trials")
    best = value(exact, *trials)
    for name in ("ratio", "whitened"):
        found = value(record_scores(*shadows)[name], *trials)
        assert 0.5 + 10 * error(found) < found.value < best.value
        assert found.value > best.value - 0.08  # the variance that it learns holds the labels' too


def test_where_others_are_known_only_the_defense_blurs():
    plain = attribute_toy(400, "shadows", told_others=True)
    assert torch.allclose(
        plain[0].uploads - 0.75 * plain[0].others,
        plain[0].hypotheses[torch.arange(400), plain[1], 0] / BATCH, atol=1e-4,
    )  # fmt: skip
    scores = record_scores(*plain)
    for name in ("ratio", "cosine"):
        assert value(scores[name], *attribute_toy(400, "trials", told_others=True)).value > 0.99
    noisy = []
    for name in ("shadows", "trials"):
        evidence, secrets = attribute_toy(3000, name, told_others=True)
        evidence.uploads.add_(flat_noise(3000, DIMS, "coins", name))
        noisy.append((evidence, secrets))
    mu = float(STEP.norm())
    for name in ("ratio", "whitened"):
        assert abs(gap(value(record_scores(*noisy[0])[name], *noisy[1]), mu)) < 3.5


def test_cosine_by_hand():
    uploads = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    hypotheses = torch.tensor([[[[2.0, 0.0]], [[0.0, -7.0]]]] * 2)
    asked = Evidence(uploads, 2, 0.5, hypotheses)
    assert cosine(asked).flatten().tolist() == pytest.approx([0.6, -0.8, 0, 0])
    labels = torch.tensor([[[[2.0, 0.0], [3.0, 4.0]]]] * 2)  # the better of two labels
    assert cosine(Evidence(uploads, 2, 0.5, labels)).tolist() == [[0, 1], [0, 0]]
    clients = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [-2.0, 0.0]]])
    asked = Evidence(clients, 2, 0.5, torch.tensor([[[[1.0, 0.0]]]]))
    assert cosine(asked).flatten().tolist() == pytest.approx([0.6, 1, -1])
    rest = Evidence(uploads, 2, 0.5, hypotheses, torch.tensor([[4.0, 8.0], [0.0, 2.0]]))
    assert cosine(rest).flatten().tolist() == pytest.approx([1, 0, 0, 1])


def test_an_upload_that_says_nothing():
    evidence, secrets = attribute_toy(200, "shadows", scale=0.0)
    for score in record_scores(evidence, secrets, through=0.0).values():
        assert score(evidence).abs().max() == 0


@pytest.mark.parametrize("game", ["attribute-known", "membership", "source"])
def test_a_record_alone_in_its_batch_is_told(game):
    assert told(played(game, 1)["static"]).value > 0.99
    assert told(played(game, 1, knowledge=Knowledge(label=False))["static"]).value > 0.99


@pytest.mark.parametrize("game", ["attribute-known", "membership", "source"])
def test_a_record_is_told_where_all_others_are_known(game):
    for batch in (4, 16):
        worst = told(played(game, batch, knowledge=Knowledge(others=True))["static"])
        known_less = told(played(game, batch)["static"])
        assert worst.value > 0.99
        assert worst.value >= known_less.value
    assert known_less.value < 0.99


@pytest.mark.parametrize("game", ["attribute-known", "membership"])
def test_likelihoods_beat_cosine_matching(game):
    shadows, trials = (evidence(game, 16, half, count=900) for half in ("auxiliary", "private"))
    found = {name: value(score, *trials).value for name, score in record_scores(*shadows).items()}
    assert found["ratio"] >= found["cosine"] + 0.05  # papers/inference.md, 7.7
    assert found["whitened"] >= found["ratio"] + 0.05


def test_who_does_not_know_the_label_tells_no_more():
    names = Knowledge(), Knowledge(label=False)
    knows, guesses = (told(played("attribute-known", 16, knowledge=k)["static"]) for k in names)
    assert guesses.value <= knows.value + 3 * math.hypot(error(knows), error(guesses))


def test_any_number_of_clients_may_hold_a_record():
    values = []
    for users in (2, 5):
        found = played("source", 4, rules=Rules(4, users=users))["static"]
        right = found.log_probabilities.argmax(dim=1) == found.secrets
        values.append(float(right.double().mean()))
        assert told(found).value > 0.9
    assert values[0] >= values[1] > 0.5


@pytest.mark.parametrize("name", ["ratio", "whitened", "cosine"])
def test_permuted_secrets_leave_no_confidence(name):
    # What tells the hypotheses apart is not learned, so that the order of trials stays.
    shadows, secrets = attribute_toy(1200, "shadows")
    mixed = secrets[torch.randperm(1200, generator=generator(0, "permuted"))]
    score = record_scores(shadows.part(slice(600)), mixed[:600])[name]
    chosen = choose({name: score}, shadows.part(slice(600, None)), mixed[600:])
    trials, truth = attribute_toy(1200, "trials")
    bits = information(chosen.log_probabilities(trials), truth)
    assert abs(bits.value) < 0.08  # of about 0.4, by the chance of 600 secrets
