from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adversary.games import GAMES
from adversary.games.game import draw_secrets, with_label_skew
from adversary.games.records import Pool
from fedsim.core.rng import generator
from fedsim.core.secrets import Encoding, Rules
from tests.adversary.games.game_cases import ENCODING, census

SIZE = 60
NUMBERED = Pool(  # a record says its own place, so that one sees which were drawn
    torch.stack([torch.arange(SIZE).float(), torch.zeros(SIZE)], dim=1),
    torch.arange(SIZE) % 3,
    (torch.arange(SIZE) % 5 == 0).long(),
    Encoding(torch.tensor([1]), torch.tensor([-1.0]), torch.tensor([1.0])),
)
RULES = Rules(6, users=2)


def sampled(game, rules=RULES, pool=NUMBERED, *, count=200, seed=0):
    wanted = draw_secrets(count, GAMES[game].classes(rules), generator(seed, "secrets"))
    return GAMES[game].sample(pool, rules, wanted, generator(seed, "records"))


def places(inputs):
    return inputs[..., 0].long()


def marked(trials, pool=NUMBERED):
    return pool.marks[places(trials.inputs)]


@pytest.mark.parametrize("game", GAMES)
def test_trials_are_records_of_the_pool_with_their_labels(game):
    trials = sampled(game)
    assert trials.inputs.shape[:2] == trials.labels.shape == (200, 6 * trials.clients)
    assert torch.equal(trials.labels, NUMBERED.labels[places(trials.inputs)])
    assert trials.secrets.bincount().tolist() == [100, 100]
    assert (
        (trials.targets is not None) == (trials.target_labels is not None) == GAMES[game].has_target
    )
    if game != "attribute-known":
        assert torch.equal(trials.inputs[..., 1], torch.zeros_like(trials.labels).float())


@pytest.mark.parametrize("game", GAMES)
def test_the_same_stream_draws_the_same_trials_and_leaves_the_pool_alone(game):
    before = NUMBERED.inputs.clone()
    one, again, other = sampled(game), sampled(game), sampled(game, seed=1)
    assert torch.equal(one.inputs, again.inputs)
    assert torch.equal(one.secrets, again.secrets)
    assert not torch.equal(one.inputs, other.inputs)
    assert torch.equal(NUMBERED.inputs, before)


@given(st.integers(0, 50), st.integers(2, 6))
def test_secrets_are_as_many_of_each_as_can_be(count, classes):
    drawn = draw_secrets(count, classes, generator(0, "balanced")).bincount(minlength=classes)
    assert int(drawn.sum()) == count
    assert int(drawn.max() - drawn.min()) <= 1


def test_the_attribute_of_the_first_record_is_the_secret_and_others_are_anyones():
    trials = sampled("attribute", count=2000)
    marks = marked(trials)
    assert torch.equal(marks[:, 0], trials.secrets)
    rest = marks[:, 1:].double()
    error = (NUMBERED.prior * (1 - NUMBERED.prior) / rest.numel()) ** 0.5
    assert float(rest.mean()) == pytest.approx(NUMBERED.prior, abs=3.5 * error)
    halves = [rest[trials.secrets == kind].mean() for kind in (0, 1)]
    assert float(halves[0] - halves[1]) == pytest.approx(0, abs=3.5 * 2 * error)


def test_the_attribute_of_a_known_record_is_set_by_a_fair_coin():
    trials = sampled("attribute-known", count=2000)
    coin = 2.0 * trials.secrets - 1
    assert torch.equal(trials.inputs[:, 0, 1], coin)
    assert torch.equal(trials.inputs[:, 1:, 1], torch.zeros(2000, 5))
    assert torch.equal(trials.targets[:, :, 1], torch.tensor([-1.0, 1.0]).expand(2000, 2))
    assert torch.equal(trials.targets[torch.arange(2000), trials.secrets], trials.inputs[:, 0])
    assert torch.equal(places(trials.targets)[:, 0], places(trials.targets)[:, 1])
    assert torch.equal(trials.target_labels, trials.labels[:, 0])
    real = marked(trials)[:, 0] == trials.secrets  # the record's own attribute says nothing
    assert float(real.double().mean()) == pytest.approx(0.5, abs=3.5 * 0.5 / 2000**0.5)


def test_an_encoding_writes_its_columns_alone():
    pool = census("private")
    secret = torch.arange(len(pool.labels)) % 2
    twins = ENCODING.put(pool.inputs, secret)
    assert torch.equal(twins[:, :-2], pool.inputs[:, :-2])
    assert torch.equal(twins[:, -2:], torch.eye(2)[secret])
    assert torch.equal(ENCODING.put(twins, pool.marks), pool.inputs)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_as_many_records_have_the_property_as_asked_or_none(count):
    trials = sampled("property", replace(RULES, count=count))
    assert torch.equal(marked(trials).sum(dim=1), count * trials.secrets)


def test_each_record_has_the_property_with_the_share_that_the_secret_names():
    rules = Rules(5, shares=(0.0, 0.25, 1.0))
    trials = sampled("distribution", rules, count=3000)
    marks = marked(trials).double()
    told = [float(marks[trials.secrets == k].mean()) for k in range(3)]
    assert told == pytest.approx([0, 0.25, 1], abs=3.5 * (0.25 * 0.75 / 5000) ** 0.5)
    assert set(marks[trials.secrets == 1].sum(dim=1).tolist()) == {0, 1, 2, 3, 4, 5}


def test_a_share_of_the_records_is_the_users():
    pool = replace(NUMBERED, marks=torch.arange(SIZE) % 4)
    for own in (0.0, 0.4, 1.0):
        trials = sampled("user", Rules(5, users=4, user_share=own), pool, count=2000)
        mine = (marked(trials, pool) == trials.secrets[:, None]).double()
        share = own + (1 - own) / 4
        error = (share * (1 - share) / mine.numel()) ** 0.5
        assert float(mine.mean()) == pytest.approx(share, abs=3.5 * error)


def test_a_member_is_first_in_the_batch_and_another_record_is_not_there():
    trials = sampled("membership", count=1000)
    assert trials.targets.shape == (1000, 1, 2)
    target, batch = places(trials.targets), places(trials.inputs)
    inside = trials.secrets == 1
    assert torch.equal(target[inside, 0], batch[inside, 0])
    found = (batch[~inside] == target[~inside]).any(dim=1)  # the same by chance: 6 draws of 60
    assert float(found.double().mean()) == pytest.approx(1 - (59 / 60) ** 6, abs=0.05)
    assert torch.equal(trials.target_labels, NUMBERED.labels[target[:, 0]])


def test_one_client_holds_the_record():
    trials = sampled("source", Rules(6, users=3), count=300)
    batches = places(trials.inputs).view(300, 3, 6)
    assert trials.clients == 3
    assert trials.secrets.bincount().tolist() == [100, 100, 100]
    first = batches[torch.arange(300), trials.secrets, 0]
    assert torch.equal(first, places(trials.targets)[:, 0])


def test_records_that_a_game_needs_must_be_there():
    none = replace(NUMBERED, marks=torch.zeros(SIZE, dtype=torch.int64))
    with pytest.raises(ValueError, match="pool: must hold records with and without"):
        sampled("attribute", pool=none)
    with pytest.raises(ValueError, match="column: must be a model input"):
        sampled("attribute-known", pool=replace(NUMBERED, encoding=None))
    with pytest.raises(ValueError, match="count: must be at most the batch size 6, got 7"):
        sampled("property", replace(RULES, count=7))


@pytest.mark.parametrize("name", ["distribution", "property", "user"])
def test_trials_with_skewed_labels_keep_the_secret_and_differ_in_their_labels(name):
    rules, wanted = Rules(60), draw_secrets(80, 2, generator(0, "wanted"))
    even, skewed = (
        sample(NUMBERED, rules, wanted, generator(0, "skew"))
        for sample in (GAMES[name].sample, with_label_skew(GAMES[name].sample))
    )
    assert skewed.inputs.shape == even.inputs.shape
    assert torch.equal(skewed.secrets, wanted)
    spread = lambda trials: float((trials.labels == 0).double().mean(dim=1).std())
    assert spread(skewed) > 2 * spread(even)
    shares = lambda trials: [float(marked(trials)[wanted == s].double().mean()) for s in (0, 1)]
    assert shares(skewed) == pytest.approx(shares(even), abs=0.05)
