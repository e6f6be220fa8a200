import math
from dataclasses import replace
from itertools import count

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from adversary.attacks import ATTACKS
from adversary.grading.families import FAMILIES
from adversary.grading.linkage import METRICS, adjusted_rand, blind, grade
from adversary.linkage.guess import packed
from defenses.gaussian import gaussian
from fedsim.conformance.sequential import has_advantage, is_better
from fedsim.core.errors import NotApplicable
from fedsim.core.ground_truth import Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary
from fedsim.run.unnamed import EARLIER, LATEST, unnamed
from tests.builders import bilinear, observe, plain_gradient, same_params

CLASSES, CLIENTS, SIZE = 5, 5, 16
MODEL = bilinear(CLASSES, features=12)
CENTRES = torch.randn(CLASSES, 4, generator=generator(0, "centres"))
AUX_LABELS = torch.arange(100) % CLASSES


def examples(labels, stream):
    """Return inputs of some labels: Gaussian blobs."""
    return CENTRES[labels] + 0.5 * torch.randn(len(labels), 4, generator=stream)


KNOWN = Auxiliary(
    MODEL, CLASSES, inputs=examples(AUX_LABELS, generator(0, "auxiliary")), labels=AUX_LABELS
)
LINKAGE = [name for name, attack in ATTACKS.items() if attack.family == "linkage"]
LOOKS = [name for name in LINKAGE if name != "linkage-examples"]  # the others have equal sizes
MANY = [  # for many federations: what rehearses clients takes its time
    pytest.param(name, marks=pytest.mark.slow) if ATTACKS[name].rehearses else name
    for name in LOOKS
]


def rounds_of(seed, shares, *, num_rounds=3, noise=None, sizes=(SIZE,) * 99):
    """Return rounds, latest first: a fresh batch of each client's distribution in each of them."""
    stream, rounds = generator(seed, "federation"), []
    for round_ in range(1, num_rounds + 1):
        sent = {k: v + 0.1 * torch.randn(v.shape, generator=stream) for k, v in STATE.items()}
        model = bilinear(CLASSES, features=12)
        model.load_state_dict(sent)
        uploads = {}
        for client, share in enumerate(shares):
            labels = torch.multinomial(share, sizes[client], replacement=True, generator=stream)
            delta = plain_gradient(model, examples(labels, stream), labels)
            if noise is not None:
                delta = {
                    k: torch.randn(v.shape, generator=stream) * noise for k, v in delta.items()
                }
            view = observe(delta, sizes[client], sent=sent, round_=round_, client=str(client))
            uploads[str(client)] = view.latest
        rounds.insert(0, uploads)
    return rounds


STATE = {name: value.clone() for name, value in MODEL.state_dict().items()}
ONE_EACH = torch.eye(CLASSES)
ALIKE = torch.full((CLIENTS, CLASSES), 1 / CLASSES)


def shown(rounds, seed=0):
    """Return rounds without names."""
    found = unnamed(iter(rounds), Memory(), seed)
    assert found is not None
    return found


def graded(name, found, auxiliary=KNOWN):
    guess = ATTACKS[name].infer(found.view, auxiliary, generator(0, "infer"))
    return grade(FAMILIES["linkage"].check(guess, auxiliary), found.truth)


@pytest.mark.parametrize("name", LOOKS)
def test_clients_of_one_class_each_are_linked_in_every_round(name):
    for seed in range(2):
        found = graded(name, shown(rounds_of(seed, ONE_EACH), seed))
        assert found == {"auroc": 1.0, "accuracy": 1.0, "ari": 1.0}


def gains(name, make):
    """Yield what an attack's AUROC is above chance, federation after federation."""
    for seed in count():
        yield graded(name, make(seed))["auroc"] - 0.5


@pytest.mark.parametrize("name", MANY)
def test_fresh_examples_of_one_distribution_link_nobody(name):
    assert not has_advantage(gains(name, lambda s: shown(rounds_of(s, ALIKE, num_rounds=2), s)))


@pytest.mark.parametrize("name", ["linkage-cosine", MANY[3]])
def test_uploads_of_noise_link_nobody(name):
    make = lambda s: shown(rounds_of(s, ONE_EACH, num_rounds=2, noise=1.0), s)
    assert not has_advantage(gains(name, make))


@pytest.mark.parametrize("name", MANY)
def test_clients_that_differ_in_their_labels_are_linked_by_fresh_examples(name):
    def make(seed):
        stream = generator(seed, "skew")
        shares = torch.rand(CLIENTS, CLASSES, generator=stream).pow(4) + 1e-3
        return shown(rounds_of(seed, shares, num_rounds=2), seed)

    assert is_better(gains(name, make))


@pytest.mark.parametrize("name", ["linkage-whitened", MANY[-1]])
def test_who_uploaded_is_graded_against_the_truth_alone(name):
    def make(seed):
        found = shown(rounds_of(seed, ONE_EACH, num_rounds=2), seed)
        order = torch.randperm(CLIENTS, generator=generator(seed, "shuffled"))
        uploaders = found.truth.uploaders.clone()
        uploaders[CLIENTS:] = uploaders[CLIENTS:][order]
        return replace(found, truth=replace(found.truth, uploaders=uploaders))

    assert not has_advantage(gains(name, make))


def test_numbers_of_examples_link_clients_of_different_sizes():
    sizes = (4, 8, 16, 32, 64)
    found = graded("linkage-examples", shown(rounds_of(0, ALIKE, sizes=sizes)))
    assert found == {"auroc": 1.0, "accuracy": 1.0, "ari": 1.0}
    same = graded("linkage-examples", shown(rounds_of(0, ALIKE)))
    assert same["auroc"] == 0.5
    rounds = rounds_of(0, ALIKE)
    untold = [{c: replace(o, update=replace(o.update, num_examples=None)) for c, o in r.items()}
              for r in rounds]  # fmt: skip
    with pytest.raises(NotApplicable, match="num_examples: must be told"):
        graded("linkage-examples", shown(untold))


@pytest.mark.parametrize("name", LINKAGE)
def test_the_same_rounds_give_the_same_answer_and_are_left_alone(name):
    rounds = rounds_of(1, ALIKE)
    before = [{c: dict(o.update.delta) for c, o in uploads.items()} for uploads in rounds]
    first, again = (
        ATTACKS[name].infer(shown(rounds).view, KNOWN, generator(seed)) for seed in range(2)
    )
    assert torch.equal(first, again)
    for uploads, old in zip(rounds, before, strict=True):
        assert all(same_params(uploads[c].update.delta, old[c]) for c in uploads)


@pytest.mark.parametrize("name", LINKAGE)
def test_one_round_alone_links_nothing(name):
    view = shown(rounds_of(0, ALIKE)).view.until(2)
    with pytest.raises(NotApplicable, match="rounds: must be two or more, got 1"):
        ATTACKS[name].infer(view, KNOWN, generator(0))


@pytest.mark.parametrize("name", LOOKS)
def test_names_and_places_say_nothing(name):
    rounds = rounds_of(2, ONE_EACH)
    renamed = [
        {str(9 - int(c)): replace(o, update=replace(o.update, client=str(9 - int(c))))
         for c, o in reversed(uploads.items())}
        for uploads in rounds
    ]  # fmt: skip
    assert graded(name, shown(rounds)) == pytest.approx(graded(name, shown(renamed, seed=5)))


def test_a_round_without_names_holds_no_name_and_no_order():
    rounds = rounds_of(0, ALIKE, num_rounds=4)
    named = [
        {f"SECRET{c}": replace(o, update=replace(o.update, client=f"SECRET{c}"))
         for c, o in uploads.items()}
        for uploads in rounds
    ]  # fmt: skip
    found = shown(named)
    assert "SECRET" not in repr(found.view)
    assert {o.update.client for cohort in found.view.cohorts for o in cohort} == {
        f"upload-{k}" for k in range(CLIENTS)
    }
    orders = found.truth.uploaders.view(4, CLIENTS).tolist()
    assert len({tuple(order) for order in orders}) > 1
    assert [o.update.round for o in found.view.observations] == [1, 2, 3, 4]


def test_no_more_uploads_are_shown_than_the_cost_allows():
    observation = rounds_of(0, ALIKE, num_rounds=1)[0]["0"]

    def many(round_, clients):
        return {
            str(c): replace(observation, update=replace(observation.update, round=round_))
            for c in range(clients)
        }

    asked = []

    def rounds(clients):
        for round_ in range(40, 0, -1):
            asked.append(round_)
            yield many(round_, clients)

    assert [len(c) for c in shown(rounds(100)).view.cohorts] == [100] * (1 + EARLIER // 100)
    assert len(asked) == EARLIER // 100 + 2  # earlier rounds are not opened
    assert [len(c) for c in shown(rounds(700)).view.cohorts] == [LATEST] * (1 + EARLIER // LATEST)
    assert unnamed(iter([many(1, 3)]), Memory(), 0) is None
    assert unnamed(iter([many(2, 3), {}]), Memory(), 0) is None


A = Truth(torch.zeros(0), torch.zeros(0), uploaders=torch.tensor([0, 1, 2, 1, 0]))


@pytest.mark.worked
def test_pairs_sequences_and_the_most_alike_are_graded():
    scores = torch.tensor([[0.1, 0.9, 0.9], [0.2, 0.2, 0.0]])  # of client 1, then of client 0
    found = grade(packed(scores, torch.tensor([0, 1, 2, 1, 0])), A)
    # Pairs of one client: .9 and .2; others: .1, .9, .2, 0. AUROC (3.5 + 2.5) / 8.
    assert found == {"auroc": 0.75, "accuracy": 0.5, "ari": 1.0}
    wrong = grade(packed(scores, torch.tensor([0, 1, 2, 0, 1])), A)
    assert wrong["ari"] == pytest.approx(-1 / 4)  # no pair of two right ones; 4 / 10 by chance


@pytest.mark.twin
def test_the_adjusted_rand_index_is_that_of_scikit_learn():
    for seed in range(20):
        stream = generator(seed, "partitions")
        left, right = (torch.randint(k, (12,), generator=stream) for k in (3, 5))
        expected = adjusted_rand_score(left.numpy(), right.numpy())
        assert adjusted_rand(left, right) == pytest.approx(expected)


def test_blind_is_chance():
    found = shown(rounds_of(0, ALIKE))
    guess = blind(found.view, KNOWN, generator(0))
    assert grade(guess, found.truth) == {"auroc": 0.5, "accuracy": pytest.approx(1 / 5), "ari": 0.0}


@pytest.mark.parametrize("uploaders", [[0, 1, 2, 3, 4], [0, 0, 0, 0, 0], None])
def test_where_nobody_uploads_twice_or_nobody_else_nothing_is_defined(uploaders):
    codes = None if uploaders is None else torch.tensor(uploaders)
    guess = packed(torch.zeros(2, 3), torch.zeros(5, dtype=torch.int64))
    found = grade(guess, replace(A, uploaders=codes))
    assert set(found) == set(METRICS)
    assert all(math.isnan(value) for value in found.values())


def test_a_guess_about_other_uploads_is_refused():
    with pytest.raises(ValueError, match="guess: must be about 5 uploads, got 4"):
        grade(packed(torch.zeros(2, 2), torch.zeros(4, dtype=torch.int64)), A)


@pytest.mark.slow
def test_who_knows_the_noise_gives_weight_to_what_stands_out_of_it():
    defense = gaussian(std=0.3)

    def defended(seed):
        stream, rounds = generator(seed, "noise"), rounds_of(seed, ONE_EACH, num_rounds=2)
        for uploads in rounds:
            for client, seen in uploads.items():
                delta = defense.apply(seen.update.delta, {}, stream)[0]
                uploads[client] = replace(seen, update=replace(seen.update, delta=delta))
        return shown(rounds, seed)

    knows = replace(KNOWN, defense=defense)
    gain = (
        graded("linkage-rehearsed", defended(seed), knows)["auroc"]
        - graded("linkage-rehearsed", defended(seed))["auroc"]
        for seed in count()
    )
    assert is_better(gain)
