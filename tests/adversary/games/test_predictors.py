import math

import pytest
import torch
from scipy.stats import norm

from adversary.games import predictors
from adversary.games.ceilings import count_auroc, share_counts
from adversary.games.evidence import Evidence
from adversary.games.predictors import LOWEST, choose, combine, turned, upload_scores, with_mean
from adversary.games.scores import auroc, below_chance, information
from fedsim.core.rng import generator
from tests.adversary.games.game_cases import error

NAMES = ("forest", "linear", "signed forest", "summary forest", "summary linear")
ANCHOR = 30.0  # a constant entry, beside which the others' length does not matter


def gaussian(count, mu, *names, dims=4, dense=False):
    """Return updates whose first entry is N(±mu/2, 1), and the secrets; `dense`: all entries."""
    secrets = torch.arange(count) % 2
    noise = torch.randn(count, dims, generator=generator(0, "toy", *names))
    noise[:, : dims if dense else 1] += mu * (secrets - 0.5)[:, None]
    return torch.cat([torch.full((count, 1), ANCHOR), noise], dim=1), secrets


def sparse(count, *names):
    """Return updates in which the secret decides which of many entries are there."""
    secrets = torch.arange(count) % 2
    stream = generator(0, "sparse", *names)
    there = torch.rand(count, 20, generator=stream) < torch.where(secrets == 1, 0.6, 0.3)[:, None]
    return there * torch.randn(count, 20, generator=stream), secrets


def shown(uploads):
    return Evidence(uploads, 1, 1.0)


def fitted(uploads, secrets, *, classes=2, seed=0, names=("forest", "linear")):
    """Fit on three quarters, choose and calibrate on the rest."""
    cut = len(secrets) * 3 // 4
    scores = upload_scores(shown(uploads[:cut]), secrets[:cut], classes, seed=seed)
    return choose({n: scores[n] for n in names}, shown(uploads[cut:]), secrets[cut:])


def each_fitted(uploads, secrets):
    """Fit every predictor, and calibrate it."""
    cut = len(secrets) * 3 // 4
    scores = upload_scores(shown(uploads[:cut]), secrets[:cut], 2, seed=0)
    assert tuple(scores) == NAMES
    return [
        choose({name: score}, shown(uploads[cut:]), secrets[cut:]) for name, score in scores.items()
    ]


def odds(predictor, uploads):
    told = predictor.log_probabilities(shown(uploads))
    return told[:, 1] - told[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
def test_two_gaussians_are_told_apart_as_well_as_can_be(mu):
    uploads, secrets = gaussian(1200, mu, "trials", mu)
    found = fitted(*gaussian(3000, mu, "shadows", mu))
    told = auroc(odds(found, uploads), secrets == 1)
    assert found.name == "linear"
    assert told.value == pytest.approx(norm.cdf(mu / 2**0.5), abs=3.5 * error(told))


def test_log_odds_of_several_rounds_add():
    mu, rounds = 0.7, 4
    found = fitted(*gaussian(3000, mu, "shadows"))
    batches = [gaussian(1200, mu, "round", k) for k in range(rounds)]
    seen = [uploads for uploads, _ in batches]
    together = combine([found.log_probabilities(shown(u)) for u in seen], seen)
    told = auroc(together[:, 1] - together[:, 0], batches[0][1] == 1)
    assert told.value == pytest.approx(norm.cdf(rounds**0.5 * mu / 2**0.5), abs=3.5 * error(told))
    assert together.exp().sum(dim=1).tolist() == pytest.approx([1.0] * 1200)
    prior = torch.zeros(1200, 2, dtype=torch.float64).log_softmax(dim=1)
    other = [u + 1 for u in seen]
    same = combine([together, prior, prior], [seen[0], other[1], other[2]])
    torch.testing.assert_close(same, together)  # a round that says nothing changes nothing


def test_copies_of_what_was_seen_change_nothing():
    uploads, secrets = gaussian(600, 1.0, "trials")
    told = fitted(*gaussian(2000, 1.0, "shadows")).log_probabilities(shown(uploads))
    once, often = combine([told], [uploads]), combine([told] * 5, [uploads] * 5)
    assert torch.equal(once, often)
    assert information(once, secrets) == information(often, secrets)
    half = uploads.clone()
    half[::2] += 1e-6 * torch.arange(1, 6)  # of every other trial it is not quite a copy
    twice = combine([told, told], [uploads, half])
    assert torch.equal(twice[1::2], once[1::2])
    assert not torch.equal(twice[::2], once[::2])
    back = combine([told] * 3, [uploads, half, uploads])  # not only of the round before
    assert torch.equal(back, twice)


def test_the_forest_wins_on_patterns_and_the_linear_one_on_means():
    uploads, secrets = sparse(1200, "trials")
    forest = fitted(*sparse(1500, "shadows"))
    told = auroc(odds(forest, uploads), secrets == 1)
    most = count_auroc(*share_counts(20, (0.3, 0.6)))  # of the number of entries that are there
    assert forest.name == "forest"
    assert most == pytest.approx(0.974, abs=1e-3)
    # Trees add up twenty weak hints roughly: 0.940 to 0.955 over sets of 1,500 shadow trials.
    assert most - 0.03 - 3.5 * error(told) <= told.value <= most + 3.5 * error(told)
    # A shift of one entry alone is a pattern, too: signed forests have it. One of all is a mean.
    uploads, secrets = gaussian(1200, 0.2, "trials", dims=40, dense=True)
    linear = fitted(*gaussian(1500, 0.2, "shadows", dims=40, dense=True))
    told = auroc(odds(linear, uploads), secrets == 1)
    assert linear.name == "linear"
    assert told.value == pytest.approx(norm.cdf(0.2 * (40 / 2) ** 0.5), abs=3.5 * error(told))


@pytest.mark.slow
def test_permuted_secrets_teach_nothing(monkeypatch):
    # A direction by chance is right or wrong for all trials of one shadow set, whose own error is
    # therefore not the only one: the mean over shadow sets is held to theirs. A forest of any size
    # must do.
    monkeypatch.setattr(predictors, "TREES", 20)
    uploads, secrets = gaussian(1200, 3.0, "trials")
    others, wanted = gaussian(400, 3.0, "shadows")
    values, bits = {name: [] for name in NAMES}, {name: [] for name in NAMES}
    for k in range(12):
        mixed = wanted[torch.randperm(400, generator=generator(k, "permuted"))]
        scores = upload_scores(shown(others[:300]), mixed[:300], 2, seed=0)
        for name, score in scores.items():
            found = choose({name: score}, shown(others[300:]), mixed[300:])
            values[name].append(auroc(odds(found, uploads), secrets == 1).value)
            bits[name].append(information(found.log_probabilities(shown(uploads)), secrets).value)
    for name, found in values.items():
        spread = torch.tensor(found).std() / len(found) ** 0.5
        assert sum(found) / len(found) == pytest.approx(0.5, abs=3.5 * float(spread))
        assert sum(bits[name]) / len(bits[name]) < 0.02  # of 0.7 that the true secrets teach


def test_swapped_roles_are_the_complement():
    uploads, secrets = gaussian(400, 1.0, "trials")
    others, wanted = gaussian(800, 1.0, "shadows")
    pairs = zip(each_fitted(others, wanted), each_fitted(others, 1 - wanted), strict=True)
    for one, swapped in pairs:
        value, other = (auroc(odds(f, uploads), secrets == 1).value for f in (one, swapped))
        assert value + other == pytest.approx(1, abs=1e-9)
        reversed_ = auroc(odds(one, uploads), secrets == 0).value
        assert reversed_ == pytest.approx(1 - value, abs=1e-12)


def test_the_mean_of_all_adds_what_each_of_them_knows():
    mu, secrets = 1.0, torch.arange(3000) % 2
    uploads = torch.randn(3000, 2, generator=generator(0, "halves")) + mu * (secrets[:, None] - 0.5)
    halves = {
        str(place): lambda trials, place=place: torch.stack(
            [-trials.uploads[:, place], trials.uploads[:, place]], dim=1
        )
        for place in (0, 1)
    }
    validation, trials = uploads[:1500], uploads[1500:]
    scores = with_mean(halves, shown(validation), secrets[:1500])
    assert list(scores) == ["0", "1", "mean of all"]
    best = choose(scores, shown(validation), secrets[:1500])
    measured = auroc(odds(best, trials), secrets[1500:] == 1)
    assert best.name == "mean of all"
    assert measured.value == pytest.approx(norm.cdf(mu), abs=3.5 * error(measured))


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_probabilities_are_nearly_the_true_posteriors(mu):
    uploads, secrets = gaussian(4000, mu, "trials", mu)
    found = fitted(*gaussian(3000, mu, "shadows", mu)).log_probabilities(shown(uploads))
    true = torch.stack([-mu * uploads[:, 1], mu * uploads[:, 1]], dim=1).double() / 2
    ours, best = (information(told, secrets) for told in (found, true.log_softmax(dim=1)))
    assert ours.value <= best.value + 0.005
    assert ours.value == pytest.approx(best.value, abs=0.02)  # bits
    sure = found.exp()[:, 1]
    for low in torch.arange(0.1, 0.9, 0.2).tolist():
        here = (sure >= low) & (sure < low + 0.2)
        share, said = secrets[here].double().mean(), sure[here].mean()
        assert float(share) == pytest.approx(float(said), abs=3.5 * 0.5 / int(here.sum()) ** 0.5)


def test_bits_of_noise_are_none():
    uploads, secrets = gaussian(2000, 0.0, "trials")
    found = fitted(*gaussian(1500, 0.0, "shadows")).log_probabilities(shown(uploads))
    bits = information(found, secrets)
    assert bits.value <= 2 * (bits.high - bits.value) / 1.96
    assert bits.value > -0.02


@pytest.mark.parametrize("classes", [2, 5])
def test_no_class_is_ruled_out(classes):
    secrets = torch.arange(1000) % classes
    uploads = torch.eye(classes)[secrets] + 0.01 * torch.randn(
        1000, classes, generator=generator(0, "apart")
    )
    found = fitted(uploads, secrets, classes=classes)
    told = found.log_probabilities(shown(uploads)).exp()
    floor = 2 * LOWEST / classes
    assert float(told.min()) >= floor - 1e-12
    assert float(told.max()) <= 1 - (classes - 1) * floor + 1e-12
    assert torch.equal(told.argmax(dim=1), secrets)
    assert told.sum(dim=1).tolist() == pytest.approx([1.0] * 1000)
    assert LOWEST == 0.02  # papers/inference.md, 2.2: two probabilities in [0.02, 0.98]


@pytest.mark.parametrize("mu", [0.5, 1.5])
def test_a_secret_in_the_size_alone_is_as_plain_as_in_an_entry(mu):
    # Sizes are evidence: a scaled update is another one, up to the sizes of the shadow trials.
    def sized(count, name):
        secrets, stream = torch.arange(count) % 2, generator(0, "sized", name, mu)
        sizes = torch.exp(torch.randn(count, generator=stream) + mu * (secrets - 0.5))
        directions = torch.randn(count, 60, generator=stream)
        return directions / directions.norm(dim=1, keepdim=True) * sizes[:, None], secrets

    uploads, secrets = sized(1200, "trials")
    measured = auroc(odds(fitted(*sized(1200, "shadows"), names=NAMES), uploads), secrets == 1)
    assert measured.value == pytest.approx(norm.cdf(mu / 2**0.5), abs=3.5 * error(measured))


def test_a_secret_in_the_signs_alone_is_as_plain_as_their_number():
    # Of signSGD's two symbols, each is + with another probability: magnitudes are constant.
    shares, size = (0.4, 0.6), 20

    def signs(count, name):
        secrets, stream = torch.arange(count) % 2, generator(0, "signs", name)
        up = torch.rand(count, size, generator=stream) < torch.tensor(shares)[secrets][:, None]
        return 0.01 * (2.0 * up - 1), secrets

    uploads, secrets = signs(1200, "trials")
    measured = auroc(odds(fitted(*signs(1200, "shadows")), uploads), secrets == 1)
    most = count_auroc(*share_counts(size, shares))
    assert most == pytest.approx(0.898, abs=1e-3)
    assert measured.value == pytest.approx(most, abs=3.5 * error(measured))


def test_sizes_beyond_those_of_shadow_trials_count_as_the_largest():
    uploads, secrets = sparse(600, "shadows")
    for predictor in each_fitted(uploads, secrets):
        torch.testing.assert_close(odds(predictor, 1e4 * uploads), odds(predictor, 1e6 * uploads))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_updates_that_are_all_the_same_teach_nothing(value):
    for predictor in each_fitted(torch.full((200, 6), value), torch.arange(200) % 2):
        told = odds(predictor, torch.full((10, 6), value))
        assert told.tolist() == pytest.approx([0.0] * 10, abs=0.2)
        assert len(set(told.tolist())) == 1


def test_the_linear_one_is_ridge_regression():
    uploads, secrets = gaussian(300, 1.0, "shadows", dims=8)
    sizes = uploads.norm(dim=1, keepdim=True)
    rows = torch.cat([sizes.log(), uploads / sizes], dim=1)
    x = ((rows - rows.mean(dim=0)) / rows.std(dim=0)).double() / 10**0.5
    score = upload_scores(shown(uploads), secrets, 2, seed=0)["linear"](shown(uploads))
    fits = []
    for strength in 10.0 ** torch.arange(-12, 8, 0.05, dtype=torch.float64):
        inverse = torch.linalg.solve(x.T @ x + strength * torch.eye(10), x.T)
        fits.append(x @ inverse @ (secrets - 0.5).double() + 0.5)
    # Some strength gives these scores; which one, cross-validation says.
    nearest = min(fits, key=lambda fit: float((fit - score[:, 1]).abs().max()))
    assert float((nearest - score[:, 1]).abs().max()) < 0.02
    torch.testing.assert_close(score.sum(dim=1), torch.ones(300).double())


def test_the_same_seed_grows_the_same_forest():
    uploads, secrets = sparse(400, "shadows")
    others, _ = sparse(50, "trials")
    scores = [
        upload_scores(shown(uploads), secrets, 2, seed=k)["forest"](shown(others))
        for k in (1, 1, 2)
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_several_threads_add_the_votes_in_one_order():
    uploads, secrets = sparse(400, "threads")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        scores = upload_scores(shown(uploads), secrets, 2, seed=0)["forest"]
        first, *others = [scores(shown(uploads)) for _ in range(6)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(first, other) for other in others)


def test_of_equals_the_first_is_chosen_and_noise_is_not():
    uploads, secrets = gaussian(400, 2.0, "shadows")
    good = lambda asked: torch.stack([-asked.uploads[:, 1], asked.uploads[:, 1]], dim=1)
    noise = lambda asked: torch.randn(len(asked.uploads), 2, generator=generator(0, "noise"))
    both = {"noise": noise, "first": good, "second": good}
    assert choose(both, shown(uploads), secrets).name == "first"
    loss = choose({"noise": noise}, shown(uploads), secrets)
    assert loss.slope >= 0
    assert float(loss.log_probabilities(shown(uploads)).abs().max()) < math.log(4)


def test_scores_below_chance_on_held_out_trials_are_noticed():
    uploads, secrets = gaussian(400, 2.0, "shadows")
    wrong = lambda trials: torch.stack([trials.uploads[:, 1], -trials.uploads[:, 1]], dim=1)
    noise = lambda trials: torch.randn(len(trials.uploads), 2, generator=generator(0, "noise"))
    right = lambda trials: -wrong(trials)
    measured = {
        name: choose({name: score}, shown(uploads), secrets).held_out_auroc
        for name, score in (("wrong", wrong), ("noise", noise), ("right", right))
    }
    assert measured["wrong"].value == pytest.approx(1 - measured["right"].value)
    noticed = {name: below_chance(value) for name, value in measured.items()}
    assert noticed == {"wrong": True, "noise": False, "right": False}


def test_a_score_that_is_wrong_reliably_is_turned():
    secrets = torch.arange(200) % 2
    right = torch.stack([-secrets.float(), secrets.float()], dim=1) + torch.randn(
        200, 2, generator=generator(0, "blur")
    )
    trials = Evidence(right, 1, 1.0)
    scores = {
        "right": lambda it: it.uploads, "wrong": lambda it: -it.uploads,
        "chance": lambda it: 0 * it.uploads,
    }  # fmt: skip
    negatives = turned(scores, trials, secrets)
    assert list(negatives) == ["turned wrong"]
    assert torch.equal(negatives["turned wrong"](trials), right)
    assert choose({"wrong": scores["wrong"], **negatives}, trials, secrets).name == "turned wrong"
    three = {"wrong": lambda it: -torch.cat([it.uploads, it.uploads[:, :1]], dim=1)}
    assert turned(three, trials, secrets) == {}  # of three classes the least likely is not one
