"""What no adversary exceeds, by the records and by a promise: closed forms."""

import math

import pytest
from scipy.stats import norm

from adversary.games import GAMES, ceilings
from adversary.games.stand_ins import StandIn
from defenses import chain, clip, dp_sgd, gaussian, prune
from fedsim.core.secrets import Rules
from fedsim.games.board import Board
from fedsim.games.limits import limits
from tests.adversary.games.game_cases import PRIOR, census, learner
from tests.builders import small_config


def board(defense, **local):
    config = small_config(game={"column": "sex", "upload": "gradient"}, local=local)
    pool = census("private")
    return Board(
        config=config, private=pool, auxiliary=census("auxiliary"), learner=learner(defense),
        stand_ins=(StandIn(learner(defense), pool),), states=(), defense=defense, accuracies=(),
    )  # fmt: skip


def most(game, defense, rules, rounds=1):
    return limits(board(defense), GAMES[game], rules, rounds)


@pytest.mark.parametrize("game", ["attribute-known", "membership", "property"])
@pytest.mark.parametrize("batch", [1, 16])
def test_dp_sgd_bounds_a_replaced_record_exactly(game, batch):
    bound = most(game, dp_sgd(noise=2.0), Rules(batch))  # two clips apart: μ = 2/σ = 1
    assert bound.lowest("auroc") == pytest.approx(norm.cdf(1 / 2**0.5))
    assert bound.lowest("auroc") == pytest.approx(0.760, abs=5e-4)
    assert bound.lowest("advantage") == pytest.approx(2 * norm.cdf(0.5) - 1)
    assert bound.lowest("information") == pytest.approx(ceilings.gaussian_information(1.0))
    assert bound.lowest("accuracy") == pytest.approx(norm.cdf(0.5))
    assert bound.promise == "μ = 1 for a replaced record, one round"


def test_rounds_compose_and_records_add_up():
    rounds = most("attribute-known", dp_sgd(noise=2.0), Rules(4), rounds=4)
    assert rounds.lowest("auroc") == pytest.approx(norm.cdf(2 / 2**0.5))
    several = most("property", dp_sgd(noise=2.0), Rules(8, count=3))
    assert several.lowest("auroc") == pytest.approx(norm.cdf(3 / 2**0.5))


def test_the_lower_of_two_ceilings_holds():
    prior = census("private").prior
    assert prior == pytest.approx(PRIOR, abs=0.05)
    counted = GAMES["attribute"].ceiling(Rules(64), prior)
    loose = most("attribute", dp_sgd(noise=0.5), Rules(64))
    assert loose.lowest("auroc") == pytest.approx(counted)
    assert loose.promised["auroc"] > counted
    tight = most("attribute", dp_sgd(noise=20.0), Rules(64))
    assert tight.lowest("auroc") == pytest.approx(norm.cdf(0.1 / 2**0.5))


def test_a_share_is_bounded_by_how_many_records_it_moves():
    one = most("distribution", dp_sgd(noise=2.0), Rules(1))
    # With chance .4 the record is another one; else both shares may have the same.
    expected = 0.6**2 / 2 + 2 * 0.4 * 0.6 * norm.cdf(0.5) + 0.4**2 * norm.cdf(1 / 2**0.5)
    assert one.promised["auroc"] == pytest.approx(expected)
    assert one.promised["advantage"] == pytest.approx(0.4 * (2 * norm.cdf(0.5) - 1))
    many = most("distribution", dp_sgd(noise=2.0), Rules(64))
    assert 0.5 < one.promised["auroc"] < many.promised["auroc"] <= 1.0
    # Nobody exceeds both: an upload that is only noisy counts.
    assert one.lowest("auroc") < one.records["auroc"]


def test_noise_on_a_whole_update_bounds_every_game_of_one_client():
    noisy = chain(clip(bound=0.1), gaussian(std=1.0))
    for game in ("attribute", "distribution", "attribute-known", "membership"):
        bound = most(game, noisy, Rules(16))
        assert bound.promised["auroc"] == pytest.approx(norm.cdf(0.2 / 2**0.5))
    of_many = most("user", noisy, Rules(16, users=5))
    assert set(of_many.promised) == {"auroc"}  # each user against the others


@pytest.mark.parametrize("defense", [None, prune(rate=0.9), dp_sgd(noise=0.0)])
def test_no_promise_no_bound(defense):
    bound = most("attribute-known", defense, Rules(4))
    assert bound.promised == {}
    assert bound.promise is None
    assert bound.lowest("auroc") == 1.0
    assert bound.lowest("information") == 1.0
    assert math.isnan(bound.lowest("tpr_1"))
