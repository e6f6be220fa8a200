from dataclasses import replace

import pytest
import torch

from adversary.attack import Attack
from fedsim.run.costs import Costs, expected_costs, remarks
from fedsim.run.prepare import prepare
from fedsim.run.rehearsed_costs import num_sizes, sizes_of
from tests.builders import small_config

MODULE = "tests.fedsim.run.test_costs:"


class Clock:
    """CPU-seconds that pass where a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


def spend(seconds):
    CLOCK.now += seconds
    return seconds


def staged(view, auxiliary, generator):
    """Costs 7 s once a run, 2 s once a round, and 1 s."""
    view.memory.run.get(staged, "run", lambda: spend(7))
    view.memory.get(staged, "round", lambda: spend(2))
    spend(1)
    counts = torch.zeros(auxiliary.num_classes, dtype=torch.long)
    counts[0] = view.latest.update.num_examples
    return counts


def looking_back(view, auxiliary, generator):
    """Costs 1 s, and 0.5 s for each earlier round whose upload is no copy of the latest."""
    earlier = [view.observations[k] for k in range(len(view.observations) - 1)]
    same = lambda o: all(torch.equal(v, o.update.delta[n]) for n, v in latest.items())
    latest = view.latest.update.delta
    spend(1 + 0.5 * sum(not same(each) for each in earlier))
    return torch.zeros(auxiliary.num_classes, dtype=torch.long)


def by_size(view, auxiliary, generator):
    """Costs 5 s once for each size of clients in a round, and 1 s."""
    view.memory.get(by_size, view.latest.update.num_examples, lambda: spend(5))
    spend(1)
    return torch.zeros(auxiliary.num_classes, dtype=torch.long)


IMPORTED = []


def importing(view, auxiliary, generator):
    """Costs 0.5 s once a process, and 0.125 s."""
    if not IMPORTED:
        IMPORTED.append(spend(0.5))
    spend(0.125)
    return torch.zeros(auxiliary.num_classes, dtype=torch.long)


STAGED = Attack(name="staged", family="label", infer=staged)
SECOND = Attack(name="second", family="label", infer=staged)
BY_SIZE = Attack(name="by-size", family="label", infer=by_size)
IMPORTING = Attack(name="importing", family="label", infer=importing)
LOOKING_BACK = Attack(name="looking-back", family="label", infer=looking_back)


def planned(*, attack=MODULE + "STAGED", **federation):
    return prepare(small_config(attack=[attack], federation={"rounds": 50, **federation}))


def test_what_is_spent_once_a_round_and_once_a_run_is_counted_as_often():
    (seconds,) = expected_costs(planned(), CLOCK).attacks.values()
    assert seconds == 7 + 50 * (2 + 4 * 1)


def test_what_attacks_share_is_spent_by_the_first():
    plan = prepare(
        small_config(
            attack=[MODULE + "STAGED", MODULE + "SECOND"], federation={"rounds": 50, "clients": 4}
        )
    )
    first, second = expected_costs(plan, CLOCK).attacks.values()
    assert (first, second) == (7 + 50 * (2 + 4 * 1), 50 * 4 * 1)


def test_an_attack_that_looks_back_costs_more_with_each_round():
    attack = MODULE + "LOOKING_BACK"
    (seconds,) = expected_costs(planned(attack=attack), CLOCK).attacks.values()
    assert seconds == 50 * 4 * 1 + 0.5 * 50 * 4 * 49 / 2
    few = planned(attack=attack, clients=8, per_round=2, rounds=100)
    (seconds,) = expected_costs(few, CLOCK).attacks.values()
    assert seconds == 100 * 2 * 1 + 0.5 * 100 * 2 * 99 / 2 / 4


def sized(plan, *sizes):
    rows = torch.cat(plan.federated.clients)[: sum(sizes)].split(list(sizes))
    return replace(plan, federated=replace(plan.federated, clients=rows))


@pytest.mark.parametrize(
    ("sizes", "per_round", "distinct"),
    [
        ((8, 8, 8, 8), None, 1),
        ((8, 8, 8, 9), None, 1),  # within a factor of the square root of 2
        ((4, 8, 8, 12), None, 3),
        ((4, 8, 8, 8), 2, 1.5),  # of 6 pairs of clients three are of one size
    ],
)
def test_what_is_spent_once_for_each_size_of_clients_is_counted_as_often(
    sizes, per_round, distinct
):
    rounds = 50 if per_round is None else 100
    plan = planned(attack=MODULE + "BY_SIZE", rounds=rounds, per_round=per_round)
    plan = sized(plan, *sizes)
    assert num_sizes(plan) == pytest.approx(distinct)
    (seconds,) = expected_costs(plan, CLOCK).attacks.values()
    shown = distinct if per_round is None else 1  # no third client is rehearsed of a pair
    assert seconds == pytest.approx(rounds * (5 * shown + (per_round or 4)))


def test_what_a_first_answer_imports_is_no_part_of_a_run():
    IMPORTED.clear()
    (seconds,) = expected_costs(planned(attack=MODULE + "IMPORTING"), CLOCK).attacks.values()
    assert seconds == 50 * 4 * 0.125


def test_an_upload_of_a_gradient_is_of_one_batch():
    plan = planned(strategy="fedsgd")
    assert plan.local.batch_size == 8
    assert sizes_of(sized(plan, 4, 8, 12, 70)) == [4, 8, 8, 8]
    assert sizes_of(sized(planned(), 4, 8, 12, 70)) == [4, 8, 12, 70]


def test_an_attack_on_every_other_round_and_some_clients_costs_less():
    every = {"name": MODULE + "STAGED", "every": 2}
    (seconds,) = expected_costs(planned(attack=every, rounds=100), CLOCK).attacks.values()
    assert seconds == 7 + 50 * (2 + 4 * 1)
    some = {"name": MODULE + "STAGED", "clients": ["0", "3"]}
    (seconds,) = expected_costs(planned(attack=some, rounds=100), CLOCK).attacks.values()
    assert seconds == 7 + 100 * (2 + 2 * 1)


def test_a_sum_of_all_clients_is_one_answer_a_round():
    plan = planned(rounds=200, secure_aggregation={})
    (seconds,) = expected_costs(plan, CLOCK).attacks.values()
    assert seconds == 7 + 200 * (2 + 1)


def test_few_answers_are_not_rehearsed():
    assert expected_costs(planned(rounds=49), CLOCK) is None
    assert expected_costs(planned(attack="uniform"), CLOCK) is None


def test_a_rehearsal_changes_nothing_of_the_plan():
    plan = planned(attack="eb-gls")
    before = {name: value.clone() for name, value in plan.model.state_dict().items()}
    stream = torch.get_rng_state()
    assert min(expected_costs(plan).attacks.values()) > 0
    assert all(torch.equal(value, before[n]) for n, value in plan.model.state_dict().items())
    assert torch.equal(stream, torch.get_rng_state())


def test_an_attack_is_named_that_costs_more_than_a_tenth_of_the_training():
    plan = planned()
    (attack,) = plan.attacks

    def said(training, seconds):
        return remarks(plan, Costs(training, {attack: seconds}))

    title = f"attack.{attack.title}: about"
    assert said(20.0, 40.0) == [
        f"{title} 40 s of the run's 60 s of CPU time; every = 10 makes it a tenth"
    ]
    assert said(100.0, 40.0) == [
        f"{title} 40 s of the run's 2 min of CPU time; every = 5 makes it a fifth"
    ]
    assert said(500.0, 40.0) == []  # less than a tenth
    assert said(1.0, 9.0) == []  # nobody waits for it
