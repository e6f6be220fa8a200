from dataclasses import replace

import pytest
import torch

from adversary.attacks.fedmia import fedmia
from adversary.members.candidates import cosines
from adversary.workspace import workspace
from fedsim.core.rng import generator
from fedsim.core.types import View
from tests.adversary import member_cases as cases


def scores(view, **options):
    return fedmia(view, cases.KNOWN, generator(0), **options)


def with_delta(observation, delta):
    return replace(observation, update=replace(observation.update, delta=delta))


@pytest.mark.parametrize("shrink", [0.0, 0.1, 2.0])
def test_it_is_the_z_score_among_the_others(shrink):
    views, _ = cases.round_of(0)
    there = torch.stack([cosines(view.latest, workspace(view, cases.KNOWN)) for view in views])
    for place, view in enumerate(views):
        others = torch.cat([there[:place], there[place + 1 :]])
        variance = (others - others.mean(dim=0)).square().sum(dim=0) / (len(others) - 1)
        variance = variance + shrink * variance.mean()
        expected = (there[place] - others.mean(dim=0)) / variance.sqrt()
        torch.testing.assert_close(scores(view, shrink=shrink), expected)


def test_the_order_of_the_cohort_does_not_matter():
    [view, *_], _ = cases.round_of(0)
    turned = View(view.observations, [list(reversed(view.cohort))])
    torch.testing.assert_close(scores(turned), scores(view))


def test_a_client_that_uploads_what_is_not_finite_is_no_reference():
    views, _ = cases.round_of(0)
    broken = {n: torch.full_like(v, torch.nan) for n, v in views[1].latest.update.delta.items()}
    cohort = list(views[0].cohort)
    spoilt = [with_delta(o, broken) if o.update.client == "1" else o for o in cohort]
    fewer = [o for o in cohort if o.update.client != "1"]
    found, expected = (scores(View(views[0].observations, [c])) for c in (spoilt, fewer))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("clients", [1, 2])
def test_two_other_clients_are_needed(clients):
    [view, *_], _ = cases.round_of(0)
    few = View(view.observations, [view.cohort[:clients]])
    with pytest.raises(
        ValueError, match=f"fedmia: the round must have at least 3 .*, got {clients}"
    ):
        scores(few)
    assert scores(View(view.observations, [view.cohort[:3]])).shape == (cases.ASKED,)


def test_without_a_cohort_it_says_so():
    [view, *_], _ = cases.round_of(0)
    with pytest.raises(ValueError, match="at least 3 clients, got 1"):
        scores(View(view.observations))


def test_where_a_distribution_function_is_one_the_surest_still_stand_above_the_sure():
    views, _ = cases.round_of(0)
    stream = generator(0, "alike")
    base = views[1].latest
    others = [
        replace(base, update=replace(base.update, client=str(place), delta={
            n: v * (1 + 1e-3 * torch.randn(v.shape, generator=stream))
            for n, v in base.update.delta.items()
        }))
        for place in range(1, 5)
    ]  # fmt: skip
    found = scores(View(views[0].observations, [[views[0].latest, *others]]), shrink=0.0)
    saturated = found[torch.special.ndtr(found) == 1]
    assert len(saturated) > 10
    assert len(saturated.unique()) == len(saturated)


def test_clients_that_all_agree_tell_nothing():
    [view, *_], _ = cases.round_of(0)
    same = [
        replace(view.latest, update=replace(view.latest.update, client=str(k))) for k in range(5)
    ]
    assert float(scores(View([same[0]], [same])).abs().max()) == 0


@pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS])
def test_members_are_found(local):
    found = cases.aurocs(fedmia, local=local)
    assert float(found.mean()) > 0.6
