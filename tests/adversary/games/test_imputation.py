"""Imputation: what records say of a secret without its column, and without any upload."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from scipy.stats import norm

from adversary.games import GAMES
from adversary.games.imputation import imputation, reader
from adversary.games.property_ import impute
from fedsim.core.rng import generator
from fedsim.core.secrets import Rules
from tests.adversary.games.game_cases import ENCODING, census, chance_error

TELLING = frozenset(ENCODING.columns.tolist())
TRIALS = 1000


def imputed(game, batch, *, telling=TELLING, **rules):
    pools = [replace(census(half), telling=telling) for half in ("private", "auxiliary")]
    return imputation(GAMES[game], Rules(batch, **rules), pools[0], reader(pools[1]), trials=TRIALS)


@pytest.mark.parametrize("game", ["attribute", "property"])
def test_a_record_gives_its_sex_away_by_the_number_that_depends_on_it(game):
    # One number is N(±1.5, 1): Φ(3/√2) = .983 for who reads it alone; the label adds little.
    assert imputed(game, 1).value == pytest.approx(norm.cdf(3 / 2**0.5), abs=0.012)


def test_the_column_itself_is_not_read():
    assert imputed("attribute", 1, telling=frozenset()).value == 1.0


def test_other_records_do_not_matter_where_one_is_in_question():
    assert imputed("attribute", 16).value == pytest.approx(imputed("attribute", 1).value, abs=0.02)


def test_many_records_say_their_share():
    one, many = imputed("distribution", 1).value, imputed("distribution", 16).value
    assert one == pytest.approx(0.69, abs=0.03)  # at most .7, who reads the column
    assert many >= 0.95


@pytest.mark.parametrize("game", ["attribute-known", "membership", "source"])
def test_a_fair_coin_cannot_be_imputed(game):
    with pytest.raises(ValueError, match="must have a secret that records say, got "):
        imputed(game, 4, users=3)


def test_records_that_say_nothing_impute_nothing():
    pools = [census(half, inside=False) for half in ("private", "auxiliary")]
    stream = generator(0, "shuffled")
    mixed = [
        replace(p, marks=p.marks[torch.randperm(len(p.marks), generator=stream)]) for p in pools
    ]
    value = imputation(
        GAMES["attribute"], Rules(1), mixed[0], reader(mixed[1]), trials=TRIALS
    ).value
    assert abs(value - 0.5) < 4 * chance_error(TRIALS)


def test_records_in_unknown_places_are_averaged_over_places():
    odds = torch.tensor([[0.5, 2.0, 3.0, 7.0]], dtype=torch.float64)
    likelihoods = torch.stack([torch.zeros_like(odds), odds.log()], dim=2)
    for count in (1, 2):
        places = list(combinations(range(4), count))
        mean = sum(math.prod(odds[0, i].item() for i in some) for some in places) / len(places)
        scores = impute(likelihoods, Rules(4, count=count))
        assert float((scores[:, 1] - scores[:, 0]).exp()) == pytest.approx(mean)
