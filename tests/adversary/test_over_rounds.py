import math
from dataclasses import replace

import pyarrow.compute as pc
import pytest
import torch

from adversary import carried as module
from adversary.attacks import ATTACKS
from adversary.attacks.attribute_inference import attribute_inference
from adversary.attacks.cosine_mia import cosine_mia
from adversary.attacks.fedmia import fedmia
from adversary.attacks.shadow_inference import shadow_inference
from adversary.carried import Carried, carried
from adversary.grading.families import FAMILIES
from adversary.grading.membership import grade_members
from adversary.over_rounds import averaged, over_rounds, summed
from adversary.secrets import SECRETS, prior, secret_of
from fedsim import api
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, View
from fedsim.run.prepare import prepare
from fedsim.run.run_folder import RunFolder
from fedsim.run.truth import truth_of, truths_of
from tests.adversary import member_cases
from tests.adversary.attacks import test_attribute_inference as attribute_cases
from tests.adversary.attacks import test_shadow_inference as cases
from tests.adversary.label_cases import client
from tests.builders import small_config

pytestmark = pytest.mark.usefixtures("undrawn")

WEIGHTS = LocalTraining(0.05, 5, epochs=2)
STATES = [
    {name: value + 0.3 * torch.randn(value.shape, generator=generator(round_, name, "state"))
     for name, value in cases.SENT.items()}
    for round_ in range(6)
]  # fmt: skip


def observed(own, round_, local, seed):
    """Return what a client uploads in a round, of these rows."""
    model = cases.MODEL
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(STATES[round_])
    try:
        latest = client(model, cases.INPUTS[own], cases.LABELS[own], local, seed=seed).latest
    finally:
        model.load_state_dict(before)
    return replace(latest, sent=STATES[round_], update=replace(latest.update, round=round_ + 1))


def kept(family, secret, seed, rounds, local=WEIGHTS):
    """Return the view of a client that keeps its rows."""
    own = cases.rows(family, secret, seed)
    return View([observed(own, k, local, seed) for k in range(rounds)], memory=cases.MEMORY)


def changing(family, secrets, seed):
    """Return the view of a client with a new batch in every round, with these secrets."""
    batches = [cases.rows(family, s, seed * 100 + k) for k, s in enumerate(secrets)]
    made = [observed(own, k, cases.GRADIENT, seed) for k, own in enumerate(batches)]
    return View(made, memory=cases.MEMORY)


def infer(view, family, known=cases.KNOWN):
    return shadow_inference(view, known, generator(0), family=family, over_rounds=True)


@pytest.mark.slow
def test_of_one_round_it_is_the_attack_on_one_round():
    for family in SECRETS:
        view = kept(family, 1, 3, 1)
        alone = shadow_inference(view, cases.KNOWN, generator(0), family=family)
        torch.testing.assert_close(infer(view, family), alone)


@pytest.mark.parametrize("family", SECRETS)
def test_an_exact_copy_adds_nothing(family):
    view = kept(family, 1, 4, 2)
    again = replace(view.latest, update=replace(view.latest.update, round=3), sent=STATES[2])
    twice = View([*view.observations, again, again], memory=view.memory)
    assert torch.equal(infer(twice, family), infer(view, family))


@pytest.mark.slow
def test_more_rounds_tell_more_and_are_not_surer_than_they_may_be():
    bits = {}
    for rounds in (1, 4):
        told = [float(infer(kept("distribution", n % 2, n, rounds), "distribution")[n % 2])
                for n in range(24)]  # fmt: skip
        bits[rounds] = sum(told) / 24 / math.log(2) + 1
    assert bits[4] > max(bits[1], 0.4)


@pytest.mark.slow
def test_rounds_of_noise_leave_nothing_in_the_mean():
    bits = []
    for seed in range(20):
        view = kept("distribution", seed % 2, seed, 4)
        noise = [replace(o, update=replace(o.update, delta={
            n: 0.01 * torch.randn(v.shape, generator=generator(seed, o.update.round, n))
            for n, v in o.update.delta.items()})) for o in view.observations]  # fmt: skip
        bits.append(
            float(infer(View(noise, memory=view.memory), "distribution")[seed % 2]) / math.log(2)
            + 1
        )
    values = torch.tensor(bits)
    assert float(values.mean()) < 3.5 * float(values.std()) / 20**0.5


def until(view, place, run):
    """The view as it was in an earlier round, which had a memory of its own."""
    return View(view.observations[: place + 1], memory=Memory(run))


@pytest.mark.slow
def test_sums_that_were_kept_are_those_that_are_computed_anew():
    view, run = kept("user", 0, 5, 4), Memory()
    step_by_step = [infer(until(view, k, run), "user") for k in range(4)][-1]
    assert torch.equal(infer(view, "user"), step_by_step)


def test_one_sum_is_kept_and_each_round_is_asked_about_once():
    rounds = []

    def inner(view, auxiliary, stream):
        rounds.append(view.latest.update.round)
        return cosine_mia(view, auxiliary, stream)

    view, run = rounds_of_a_member(0, 4), Memory()
    for k in range(4):
        averaged(until(view, k, run), member_cases.KNOWN, generator(0), inner=inner)
    assert rounds == [1, 2, 3, 4]
    assert len(run.get(Carried, None, Carried).by_name) == 1
    averaged(until(view, 3, Memory()), member_cases.KNOWN, generator(0), inner=inner)
    assert rounds == [1, 2, 3, 4] * 2


def test_what_was_used_longest_ago_is_forgotten_beyond_a_bound(monkeypatch):
    size = module.ENTRY + 8
    monkeypatch.setattr(module, "BYTES", 2 * size)
    kept, value = Carried(), torch.zeros(2)
    for name in "abc":
        kept.replace(None, ("sum", name), value)
    assert (list(kept.by_name), kept.bytes) == ([("sum", "b"), ("sum", "c")], 2 * size)
    kept.replace(("sum", "b"), ("sum", "d"), value + 1)
    assert (list(kept.by_name), kept.bytes) == ([("sum", "c"), ("sum", "d")], 2 * size)
    place, state = kept.longest("sum", ["c", "d", "e"], 3)
    assert (place, state.tolist()) == (2, [1.0, 1.0])
    assert kept.longest("sum", ["c", "d", "e"], 1)[0] == 1
    assert kept.longest("sum", ["e"], 1) == (0, None)
    assert kept.longest("other", ["c", "d"], 2) == (0, None)


def test_rounds_before_an_error_are_not_read_again():
    view, run, asked = rounds_of_a_member(0, 3), Memory(), []

    def add(before, single):
        asked.append(single.latest.update.round)
        if asked[-1] == 3:
            raise ValueError("three")
        return (before or 0) + 1

    for _ in range(2):
        with pytest.raises(ValueError, match="three"):
            carried(until(view, 2, run), ("count",), add)
    assert asked == [1, 2, 3, 3]
    assert carried(until(view, 1, run), ("count",), add) == 2
    assert carried(until(view, 2, run), ("other",), add, until=1) == 1


def rounds_of_a_member(seed, rounds):
    views, _ = member_cases.round_of(seed)
    seen = []
    for k in range(rounds):
        own, cohort = views[0].latest, [view.latest for view in views]
        made = [noisy(o, k) for o in cohort]
        seen.append((noisy(own, k), made))
    return View([own for own, _ in seen], [cohort for _, cohort in seen], member_cases.MEMORY)


def noisy(observation, round_):
    delta = {
        n: v + 6.0 * float(v.std()) * torch.randn(
            v.shape, generator=generator(round_, n, observation.update.client))
        for n, v in observation.update.delta.items()
    }  # fmt: skip
    return replace(observation, update=replace(observation.update, delta=delta, round=round_ + 1))


@pytest.mark.parametrize("inner", [cosine_mia, fedmia])
def test_scores_are_averaged_and_find_members_through_noise(inner):
    gains = []
    for seed in range(6):
        view, truth = rounds_of_a_member(seed, 5), member_cases.round_of(seed)[1][0]
        each = [inner(view.until(k), member_cases.KNOWN, generator(0)) for k in range(5)]
        mean = averaged(view, member_cases.KNOWN, generator(0), inner=inner)
        torch.testing.assert_close(mean, torch.stack(each).mean(dim=0))
        one = [grade_members(scores, truth)["auroc"] for scores in each]
        gains.append(grade_members(mean, truth)["auroc"] - sum(one) / 5)
    assert sum(gains) / 6 > 0.03


def test_an_upload_that_is_not_finite_costs_its_own_round_only():
    view = rounds_of_a_member(1, 3)
    broken = {n: torch.full_like(v, torch.nan) for n, v in view.latest.update.delta.items()}
    bad = replace(view.latest, update=replace(view.latest.update, delta=broken))
    seen = [view.observations[0], bad, view.observations[2]]
    ask = lambda rounds: averaged(View(rounds), member_cases.KNOWN, generator(0), inner=cosine_mia)
    torch.testing.assert_close(ask(seen), ask([seen[0], seen[2]]))
    with pytest.raises(ValueError, match="finite"):
        ask(seen[:2])


def test_uploads_of_other_data_are_left_out():
    one, two = kept("user", 0, 1, 2).observations
    fewer = replace(one, update=replace(one.update, num_examples=3))
    size = lambda single: (torch.tensor(single.latest.update.num_examples),)
    (of_same,), rounds = summed(View([fewer, two]), size, ("size",), same=True)
    assert (int(of_same), rounds) == (two.update.num_examples, 1)
    (of_all,), rounds = summed(View([fewer, two]), size, ("size",))
    assert (int(of_all), rounds) == (two.update.num_examples + 3, 2)


@pytest.mark.slow
def test_any_batch_so_far_may_have_had_the_property():
    def told(secrets):
        return sum(float(infer(changing("property", secrets, n), "property")[1].exp())
                   for n in range(12)) / 12  # fmt: skip

    before, never = told([1, 0, 0]), told([0, 0, 0])
    assert before > never
    view = changing("property", [0, 0, 0], 0)
    blind = FAMILIES["property"].blind_so_far(view, cases.KNOWN, generator(0))
    once = prior("property", view, cases.KNOWN)
    assert float(blind[0]) == pytest.approx(3 * float(once[0]))
    several = replace(cases.KNOWN, rules=replace(cases.RULES, count=2))
    with pytest.raises(ValueError, match="count: must be 1 for new batches, got 2"):
        infer(view, "property", several)


@pytest.mark.slow
@pytest.mark.contract
def test_attributes_of_records_over_rounds():
    grade, single, summed = FAMILIES["attribute"].grade, [], []
    local = LocalTraining(0.1, 3, epochs=2)
    for seed in range(10):
        views = [attribute_cases.seen(seed, local)[0].latest for _ in range(1)]
        truth = attribute_cases.seen(seed, local)[1]
        moved = {n: v + 0.2 * torch.randn(v.shape, generator=generator(n))
                 for n, v in attribute_cases.SENT.items()}  # fmt: skip
        rows = truth.indices
        attribute_cases.MODEL.load_state_dict(moved)
        own = attribute_cases.INPUTS[rows], attribute_cases.LABELS[rows]
        later = client(attribute_cases.MODEL, *own, local, seed=seed).latest
        attribute_cases.MODEL.load_state_dict(attribute_cases.SENT)
        later = replace(later, sent=moved, update=replace(later.update, round=2))
        known, memory = attribute_cases.KNOWN, attribute_cases.MEMORY
        first, both = View(views, memory=memory), View([*views, later], memory=memory)
        alone = attribute_inference(first, known, generator(0))
        single.append(grade(alone, truth)["accuracy"])
        together = attribute_inference(both, known, generator(0), over_rounds=True)
        summed.append(grade(together, truth)["accuracy"])
    assert sum(summed) >= sum(single)


def test_a_record_need_not_be_in_a_new_batch():
    view = View([replace(attribute_cases.seen(0)[0].latest, local=attribute_cases.GRADIENT)])
    with pytest.raises(ValueError, match="aia-rounds: clients must upload all of their data"):
        attribute_inference(view, attribute_cases.KNOWN, generator(0), over_rounds=True)


def test_only_scores_are_averaged_from_outside():
    assert over_rounds(ATTACKS["cosine-mia"]) is ATTACKS["cosine-mia"]
    assert over_rounds(ATTACKS["dia-rounds"]) is ATTACKS["dia-rounds"]
    assert over_rounds(ATTACKS["fedmia-rounds"]).infer is not fedmia


def config(**federation):
    return small_config(
        attack="cosine-mia,cosine-mia-rounds,fedmia-rounds,dia-rounds,pia-rounds",
        data={"name": "tests.adversary.attacks.test_attribute_inference:with_attribute"},
        model={"name": "mlp", "hidden": 8},
        federation={"rounds": 3, "clients": 4, "strategy": "fedsgd", **federation},
        local={"epochs": 1, "batch_size": 10},
        game={"column": "secret", "value": "yes"},
        auxiliary={"share": 0.4, "candidates": 200},
    )  # fmt: skip


@pytest.mark.e2e
def test_a_run_asks_of_all_that_a_client_has_used_so_far(tmp_path, monkeypatch):
    run = api.run(config(), tmp_path / "run")
    plan, folder = prepare(run.config()), RunFolder(run.path)
    latest, so_far = (truths_of(plan, folder, 3, so_far=flag)["0"] for flag in (False, True))
    assert (len(latest.labels), len(so_far.labels)) == (10, 30)
    assert int(so_far.members.sum()) > int(latest.members.sum())
    marks = plan.marks["property"][so_far.indices]
    with monkeypatch.context() as change:  # the earlier rounds were read, and stay so
        read = lambda _, number, *_args, **_options: {3: truth_of(folder, 3, "0")}[number]
        change.setattr("fedsim.run.truth.truth_of", read)
        assert torch.equal(truths_of(plan, folder, 3, so_far=True)["0"].labels, so_far.labels)
    assert so_far.secrets["property"] == secret_of("property", marks, plan.auxiliary.rules)
    rows = run.ledger().filter(pc.field("round") == 3)
    for name in ("cosine-mia-rounds", "fedmia-rounds", "dia-rounds", "pia-rounds"):
        own = rows.filter((pc.field("attack") == name) & pc.field("client").is_valid())
        assert own.num_rows == 4 * len(FAMILIES[ATTACKS[name].family].metrics)
        assert own["value"].null_count == 0
        assert own["ceiling"].null_count <= own.num_rows / 2


@pytest.mark.slow
def test_attacking_a_recording_again_gives_the_same_rows(tmp_path):
    run = api.run(config(rounds=2), tmp_path / "run")
    values = lambda: run.ledger().select(["attack", "client", "round", "metric", "value"])
    before = values()
    api.attack(run.path, run.config().attack)
    key = lambda row: tuple(map(str, row.values()))
    assert sorted(map(key, values().to_pylist())) == sorted(map(key, before.to_pylist()))
