import math
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import pytest
import torch

from adversary.games import GAMES, predictors
from adversary.games.learn import Adversary, Knowledge, learn
from adversary.games.play import play
from adversary.games.scores import auroc, information
from adversary.games.stand_ins import StandIn, drawn, split
from defenses import Defense, clip, gaussian, prune, sign
from fedsim.core.rng import generator
from fedsim.core.secrets import Rules
from fedsim.core.types import LocalTraining
from tests.adversary.games.game_cases import (
    PRIOR,
    census,
    chance_error,
    error,
    evidence,
    learner,
    played,
    rotation,
    told,
)
from tests.builders import same_params

SIZES = (1, 2, 4, 8, 16, 64)
LEAST_CHANGE = {"attribute": 0.35, "distribution": 0.2, "user": 0.08}  # from 1 record to 64
SHORT_OF_CEILING = {1: 0.0, 2: 0.0, 4: 0.05}  # 900 shadow trials do not teach to count four records
FEW = {"trials": 120, "shadows": 240}
once = lru_cache(maxsize=None)(played)


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """Fewer trees: what is compared here holds of any forest."""
    monkeypatch.setattr(predictors, "TREES", 30)


def value(game, batch=1, **options):
    return told(once(game, batch, **options)["static"])


def apart(*measured):
    """Return the standard error of a difference."""
    return math.hypot(*map(error, measured))


def noise():
    """A defense whose upload has nothing to do with the update."""

    def apply(params, state, stream):
        return {n: torch.randn(v.shape, generator=stream) for n, v in params.items()}, state

    return Defense(name="noise", apply=apply)


def withheld():
    """A defense that uploads zeros."""
    return Defense(
        name="withheld",
        apply=lambda params, state, _: ({n: 0 * v for n, v in params.items()}, state),
    )


@pytest.mark.parametrize("game", GAMES)
def test_on_pure_noise_nobody_tells_the_secret(game):
    said = played(game, 4, noise(), trials=1200)
    for one in said.values():
        assert told(one).value == pytest.approx(0.5, abs=3.5 * chance_error(1200))
    one = said["adaptive"]  # the other is sure of itself, and wrong
    bits = information(one.log_probabilities, one.secrets)
    assert -0.02 < bits.value <= 2 * (bits.high - bits.value) / 1.96


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_with_the_update_withheld_nobody_tells_the_secret(game):
    found = told(played(game, 1, withheld(), trials=1200)["adaptive"])
    assert found.value == pytest.approx(0.5, abs=3.5 * chance_error(1200))
    assert value(game, 1).value > 0.65


def test_a_known_attribute_is_the_updates_to_tell_and_no_imputations():
    hidden = told(played("attribute-known", 1, withheld(), inside=True, trials=1200)["static"])
    assert hidden.value == pytest.approx(0.5, abs=3.5 * chance_error(1200))
    assert value("attribute-known", 1).value >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("batch", SIZES)
def test_counts_are_the_most_that_anyone_tells(batch, monkeypatch):
    if batch in SHORT_OF_CEILING:
        monkeypatch.setattr(predictors, "TREES", 100)
    for game in ("attribute", "distribution"):
        trials, rules = 2400 if batch <= 4 else 600, Rules(batch)
        one = once(game, batch, trials=trials)["static"]
        prior = census("private").prior
        assert prior == pytest.approx(PRIOR, abs=0.05)
        ceiling, found = GAMES[game].ceiling(rules, prior), told(one)
        assert found.value <= ceiling + 3.5 * chance_error(trials)
        if batch in SHORT_OF_CEILING:
            assert found.value >= ceiling - SHORT_OF_CEILING[batch] - 3.5 * error(found)
        bits = information(one.log_probabilities, one.secrets)
        error_ = (bits.high - bits.value) / 1.96
        assert bits.value <= GAMES[game].bits(rules, prior) + 3.5 * error_
        assert bits.value <= 1


# The steps between these batch sizes are smaller than their errors.
@pytest.mark.slow
@pytest.mark.parametrize("inside", [True, False])
def test_attributes_hide_in_large_batches_and_shares_and_users_do_not(inside):
    for game, sign_ in (("attribute", -1), ("distribution", 1), ("user", 1)):
        sizes = (1, 64) if game == "user" else (1, 4, 64)
        found = [value(game, batch, inside=inside) for batch in sizes]
        for few, many in pairwise(found):
            assert sign_ * (many.value - few.value) >= -3 * apart(few, many)
        assert sign_ * (found[-1].value - found[0].value) > LEAST_CHANGE[game]


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
def test_a_property_that_is_an_input_is_there_or_not_to_the_bit(batch):
    pool = census("private")
    rules, client = Rules(batch), learner()
    wanted = torch.arange(400) % 2
    trials = GAMES["property"].sample(pool, rules, wanted, generator(0, "records"))
    uploads = client.uploads(
        client.model.state_dict(), trials.inputs, trials.labels, coins="", defense=True
    )
    column = uploads[:, : client.model[0].weight.numel()].view(400, 8, 8)[:, :, -1]
    active = client.model[0](trials.inputs).relu().amax(dim=2)[:, 0] > 0  # of the one record
    assert float(active.double().mean()) > 0.95
    assert torch.equal((column != 0).any(dim=1), (wanted == 1) & active)
    assert value("property", batch).value > 0.99


def test_a_wrong_number_of_records_or_an_old_model_helps_nobody():
    full = value("distribution", 4)
    for knowledge in (Knowledge(batch=16), Knowledge(batch=1)):
        other = told(played("distribution", 4, knowledge=knowledge)["static"])
        assert other.value <= full.value + 3 * apart(full, other)
        assert other.value > 0.7
    client = learner()
    first = client.model.state_dict()
    states = [first, {name: -value for name, value in first.items()}]
    new = Adversary(
        game=GAMES["attribute-known"], rules=Rules(16), learner=client, pool=census("auxiliary"),
        shadows=900,
    )  # fmt: skip
    old = replace(new, knowledge=Knowledge(model=False))
    knows, stale = (
        told(play(one, census("private"), states, trials=600)["static"]) for one in (new, old)
    )
    assert stale.value < knows.value - 3 * apart(knows, stale)


@pytest.mark.slow
@pytest.mark.parametrize("model", [True, False])
def test_more_rounds_tell_more(model):
    one = value("distribution", 4, trials=600)
    found = told(played("distribution", 4, rounds=4, knowledge=Knowledge(model=model))["static"])
    assert found.value > one.value + 3 * apart(one, found)


DEFENSES = {
    "clip": clip(bound=0.2), "gaussian": gaussian(std=0.1), "sign": sign(), "prune": prune(rate=0.9)
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("game", ["attribute", "distribution", "attribute-known"])
@pytest.mark.parametrize("name", DEFENSES)
def test_who_knows_the_defense_tells_no_less(game, name):
    said = played(game, 4, DEFENSES[name])
    static, adaptive = told(said["static"]), told(said["adaptive"])
    assert adaptive.value >= static.value - 3 * apart(static, adaptive)
    plain = value(game, 4)  # and no defense gives anything away
    assert adaptive.value <= plain.value + 3 * apart(plain, adaptive)


@pytest.mark.parametrize("game", ["attribute-known", "membership", "source"])
def test_a_rotation_that_the_adversary_knows_hides_nothing(game):
    turned, plain = told(played(game, 4, rotation())["adaptive"]), value(game, 4)
    assert plain.value > 0.9
    assert turned.value == pytest.approx(plain.value, abs=3.5 * apart(turned, plain))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("game", "defenses"),
    [
        ("distribution", [gaussian(std=std) for std in (0.0, 0.1, 1.0)]),
        ("attribute-known", [gaussian(std=std) for std in (0.0, 0.1, 1.0)]),
        ("distribution", [prune(rate=rate) for rate in (0.9, 0.99)]),
    ],
)
def test_a_stronger_defense_hides_no_less(game, defenses):
    found = [told(played(game, 16, defense)["adaptive"]) for defense in defenses]
    for weak, strong in pairwise(found):
        assert strong.value <= weak.value + 3 * apart(weak, strong)
    assert found[-1].value < value(game, 16).value - 0.1


def test_noise_on_shares_is_averaged_away_by_who_knows_of_it():
    said = played("distribution", 64, gaussian(std=0.05))
    static, adaptive = told(said["static"]), told(said["adaptive"])
    assert adaptive.value > static.value + 3 * apart(static, adaptive)


def test_an_adaptive_adversary_may_keep_to_what_it_learned_without_the_defense():
    (name,) = played("attribute", 4, clip(bound=1e6), **FEW)["adaptive"].chosen
    assert not name.startswith("static")  # of equals the first
    one = played("attribute-known", 4, clip(bound=1e6), trials=300, shadows=400)
    static, adaptive = one["static"].log_probabilities, one["adaptive"].log_probabilities
    torch.testing.assert_close(adaptive, static, rtol=0, atol=0.01)  # of hypotheses' rounding
    assert list(played("attribute", 4, **FEW)) == ["static"]


@pytest.mark.parametrize("game", ["attribute", "attribute-known", "user", "source"])
def test_the_same_seed_plays_the_same_game(game):
    one, again, other = (
        played(game, 2, gaussian(std=0.05), trials=60, shadows=120, seed=seed) for seed in (1, 1, 2)
    )
    for name in ("static", "adaptive"):
        assert torch.equal(one[name].log_probabilities, again[name].log_probabilities)
        assert torch.equal(one[name].secrets, again[name].secrets)
        assert one[name].chosen == again[name].chosen
        assert not torch.equal(one[name].log_probabilities, other[name].log_probabilities)


@pytest.mark.parametrize("game", ["distribution", "attribute-known", "source"])
def test_of_weights_as_of_gradients(game):
    local = LocalTraining(0.1, 4)
    weights = told(played(game, 4, local=local, **FEW)["static"])
    gradient = told(played(game, 4, **FEW)["static"])
    assert weights.value == pytest.approx(gradient.value, abs=0.03)  # the forest's ties


def test_what_several_users_and_shares_say():
    rules = Rules(4, users=4, user_share=0.7)
    users = played("user", rules=rules)["static"]
    assert users.log_probabilities.shape == (600, 4)
    assert users.secrets.bincount().tolist() == [150] * 4
    assert told(users).value > 0.7
    shares = played("distribution", rules=Rules(16, shares=(0.1, 0.5, 0.9)))["static"]
    right = (shares.log_probabilities.argmax(dim=1) == shares.secrets).double().mean()
    assert float(right) > 0.6
    assert told(shares).value <= GAMES["distribution"].ceiling(
        Rules(16, shares=(0.1, 0.5, 0.9)), PRIOR
    )


def test_an_adversary_that_was_taught_wrongly_tells_nothing():
    # Every secret of its shadow trials is a coin: the population's count says nothing of it. It may
    # be sure of itself, since trials share records, and is wrong then.
    pool, client = census("auxiliary"), learner()
    trials, truth = evidence("attribute", 1, "private", count=1200)
    values = []
    for k in range(4):
        order = torch.randperm(len(pool.marks), generator=generator(0, "mixed", k))
        taught = Adversary(
            game=GAMES["attribute"], rules=Rules(1), learner=client,
            pool=replace(pool, marks=pool.marks[order]), shadows=400,
        )  # fmt: skip
        one = learn(taught, client.model.state_dict())["static"]
        said = one.log_probabilities(trials)
        values.append(auroc(said[:, 1] - said[:, 0], truth == 1).value)
        assert information(said, truth).value < 0.05
    # By the same chance for all trials of one shadow set: 0.08 from set to set.
    assert sum(values) / len(values) == pytest.approx(0.5, abs=0.15)


def test_playing_changes_neither_the_model_nor_the_pools():
    client, pools = learner(gaussian(std=0.1)), [census("private"), census("auxiliary")]
    own = {name: value.clone() for name, value in client.model.state_dict().items()}
    before = [pool.inputs.clone() for pool in pools]
    for game in ("attribute-known", "distribution"):
        one = Adversary(game=GAMES[game], rules=Rules(2), learner=client, pool=pools[1], shadows=80)
        play(one, pools[0], [own], trials=40)
    assert same_params(client.model.state_dict(), own)
    assert all(torch.equal(p.inputs, b) for p, b in zip(pools, before, strict=True))


def test_stand_ins_of_one_defense_are_that_defense():
    game, client, pool = GAMES["attribute-known"], learner(rotation()), census("auxiliary")
    same, state = [StandIn(learner(rotation()), pool) for _ in range(3)], client.model.state_dict()
    knows = Adversary(game=game, rules=Rules(2), learner=client, pool=pool, shadows=240)
    one = learn(knows, state)
    several = learn(replace(knows, learner=learner(sign()), stand_ins=same), state)
    for found in (one, several):
        assert found["adaptive"].held_out_auroc.value > 0.8  # 0.9
        assert found["static"].held_out_auroc.value < 0.7  # a rotation hides it


def test_a_stand_in_s_trials_are_of_its_own_pool():
    game, rules, secrets = GAMES["attribute-known"], Rules(2), torch.arange(40) % 2
    pools = [census("auxiliary"), census("private")]
    stand_ins = [StandIn(learner(), pool) for pool in pools]
    draws = drawn(game, rules, stand_ins, [slice(0, 30), slice(30, 40)], secrets, 0, "shadows")
    assert len(draws.labels) == len(draws.targets) == len(draws.target_labels) == 40
    assert torch.equal(draws.secrets, secrets)
    rows = [{tuple(row) for row in pool.inputs.tolist()} for pool in pools]
    for trials, own, other in ((draws.inputs[:30], *rows), (draws.inputs[30:], *rows[::-1])):
        used = {tuple(row) for row in trials[:, 1].tolist()}  # the first record's secret was set
        assert used <= own
        assert not used & other


@pytest.mark.parametrize("clients", [1, 2, 3, 12])
def test_who_defends_what_predictors_are_fitted_on_does_not_defend_what_they_are_chosen_on(clients):
    shares = [list(range(100))[rows] for rows in split(100, 75, clients)]
    assert [place for share in shares for place in share] == list(range(100))
    assert len(shares) == clients
    assert clients == 1 or any(share[0] == 75 for share in shares)
