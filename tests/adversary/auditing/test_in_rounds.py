import numpy as np
import pytest

from adversary.auditing.claim import Claim
from adversary.auditing.coins import CoinedUpdates
from adversary.auditing.finding import Guarantee
from adversary.auditing.in_rounds import IN_ROUNDS, of_records, of_updates, tpr_at
from adversary.auditing.mean import by_mean
from adversary.auditing.one_run import by_sign, check_enough, fewest, num_guesses
from adversary.auditing.uploads import ClientScores
from defenses.promise import Relation, gaussian_epsilon

SIZE = 1000  # dimensions
TOLD = {"delta": 1e-5, "confidence": 0.95}


def claim_of(mu, rounds=1):
    epsilon = gaussian_epsilon(mu, TOLD["delta"])
    return Claim(
        relation=Relation.REPLACE_CLIENT,
        delta=TOLD["delta"],
        rounds=rounds,
        epsilon=epsilon,
        mu=mu,
        client="0",
        mechanism="Gaussian mechanism",
    )


def heard_of(stream, *, clients, rounds, mu, coins, reuse=False):
    """Return what uploads of a Gaussian mechanism say, of μ in every round."""
    found = []
    for coin in coins:
        along = np.where(coin, 1, -1) * mu / 2
        noise = stream.normal(size=(1 if reuse else rounds, SIZE))
        turned = np.where(np.arange(rounds) % 2, -1, 1)[:, None]
        noise = np.broadcast_to(noise, (rounds, SIZE)) * turned
        uploads = noise + along * np.eye(SIZE)[0]
        total = uploads.sum(axis=0)
        cosine = total[0] / np.linalg.norm(total)
        found.append(ClientScores(2 * uploads[:, 0] / mu, float(cosine), SIZE))
    return found


def many(count, *, clients, rounds, mu, **options):
    stream = np.random.default_rng(0)
    for _ in range(count):
        coins = stream.random(clients) < 0.5
        heard = heard_of(stream, clients=clients, rounds=rounds, mu=mu, coins=coins, **options)
        yield of_updates(CoinedUpdates(heard, coins), claim_of(mu * rounds**0.5, rounds), 0.95)[0]


@pytest.mark.slow
def test_bounds_hold_of_a_mechanism_that_is_what_it_claims():
    claimed = claim_of(0.8 * 5**0.5, 5).epsilon
    above = dict.fromkeys(IN_ROUNDS, 0)
    means = dict.fromkeys(IN_ROUNDS, 0.0)
    for found in many(60, clients=20, rounds=5, mu=0.8):
        for name, one in found.items():
            above[name] += one.epsilon > claimed
            means[name] += one.epsilon / 60
    bounds = [name for name, method in IN_ROUNDS.items() if method.guarantee is Guarantee.BOUND]
    assert all(above[name] <= 8 for name in bounds)  # P(more at 5 %) is 0.3 %
    assert means["audit-mean"] > 0.5 * claimed
    assert means["audit-mean"] > means["audit-mu-gdp"] > means["audit-clopper-pearson"]
    assert means["audit-one-shot"] == pytest.approx(claimed, rel=0.1)


def test_noise_that_is_used_again_is_seen_by_the_mean_alone():
    claimed = claim_of(0.8 * 2, 4).epsilon
    for found in many(5, clients=20, rounds=4, mu=0.8, reuse=True):
        assert found["audit-mean"].epsilon == 700.0 > claimed
        assert found["audit-mu-gdp"].epsilon <= claimed


def test_pure_noise_shows_nothing():
    stream = np.random.default_rng(1)
    coins = stream.random(40) < 0.5
    heard = heard_of(stream, clients=40, rounds=4, mu=1e-9, coins=coins)
    found, _ = of_updates(CoinedUpdates(heard, coins), claim_of(1.0, 4), 0.95)
    assert all(one.epsilon <= 0.1 for one in found.values() if one.guarantee is Guarantee.BOUND)


def test_what_is_counted_depends_on_numbers_of_coins():
    stream = np.random.default_rng(2)
    for clients, trials in ((10, 50), (60, 60)):
        coins = np.arange(clients) % 2 == 0
        heard = heard_of(stream, clients=clients, rounds=5, mu=1.0, coins=coins)
        found, _ = of_updates(CoinedUpdates(heard, coins), claim_of(5**0.5, 5), 0.95)
        assert found["audit-clopper-pearson"].trials == trials
        assumed = found["audit-clopper-pearson"].assumes
        assert assumed == ("fresh noise in every round" if clients == 10 else None)
        assert found["audit-mu-gdp"].trials == 5 * clients


def test_of_too_few_uploads_each_method_says_why_it_has_nothing_to_say():
    coins = np.array([True, False])
    heard = heard_of(np.random.default_rng(3), clients=2, rounds=1, mu=1.0, coins=coins)
    found, reasons = of_updates(CoinedUpdates(heard, coins), claim_of(1.0), 0.95)
    assert set(found) == {"audit-mean", "audit-one-shot"}
    assert reasons["audit-one-run"] == (
        "canaries: must be at least 6 to certify anything at 95 %, got 2"
    )
    assert reasons["audit-mu-gdp"].startswith("trials: must be at least ")


def test_signs_are_guessed_of_the_surest_alone():
    scores = np.array([3.0, -3.0, 2.0, -2.0, 2.0, -2.0, 0.1, 0.1])
    coins = np.array([True, False, True, False, True, False, False, False])
    found = by_sign(scores, coins, claim_of(1.0), 0.95)
    assert num_guesses(8) == 6
    assert found.epsilon == found.most > 0


def test_one_run_on_records_of_a_mechanism_that_is_what_it_claims():
    stream, above, curve = np.random.default_rng(4), 0, 0
    for _ in range(25):
        coins = stream.random(120) < 0.5
        scores = np.where(coins, 0.7, -0.7) + stream.normal(size=120)
        found, _ = of_records(scores, coins, claim_of(1.4), 0.95)
        assert set(found) == {"audit-one-run", "audit-one-run-f-dp"}
        above += found["audit-one-run"].epsilon > claim_of(1.4).epsilon
        curve += found["audit-one-run-f-dp"].epsilon > claim_of(1.4).epsilon
    assert not above
    assert curve <= 5  # of a level of 5 %, more have a chance of 0.1 %


def test_least_numbers():
    assert fewest(**TOLD) == 6
    with pytest.raises(ValueError, match="must carry at least 6 canaries"):
        check_enough(5, **TOLD)
    check_enough(6, **TOLD)


def test_a_mean_needs_dimensions_to_tell_noise_by():
    with pytest.raises(ValueError, match="dimension: must be at least 100 to tell noise by, got 9"):
        by_mean(np.array([0.1, 0.2]), 9, claim_of(1.0), 0.95)


def test_theory_allows_a_rate():
    assert claim_of(0.0).tpr_at(0.01) == pytest.approx(0.01)
    assert claim_of(1.0).tpr_at(0.01) == pytest.approx(0.0924, abs=1e-4)
    one = Claim(relation=Relation.REPLACE_EXAMPLE, delta=1e-5, epsilon=1.0)
    assert one.tpr_at(0.01) == pytest.approx(0.0272, abs=1e-4)
    many = Claim(relation=Relation.REPLACE_EXAMPLE, delta=1e-5, epsilon=9.0)
    assert many.tpr_at(0.01) == pytest.approx(0.99988, abs=1e-5)


def test_the_audits_own_rate_needs_a_thousand_tails():
    coins = np.arange(2000) % 2 == 0
    assert tpr_at(np.where(coins, 1.0, 0.0), coins, 0.01) == 1.0
    assert tpr_at(np.where(coins, 1.0, 0.0)[:1000], coins[:1000], 0.01) is None
