from dataclasses import replace

import pytest
import torch

from adversary.attacks.update_lira import update_lira
from adversary.grading.membership import grade_members
from adversary.members import shadows as module
from adversary.members.candidates import cosines
from adversary.members.shadows import SHADOWS, shadow_size, shadows
from adversary.workspace import workspace
from defenses import Defense, gaussian
from fedsim.core.rng import generator
from fedsim.core.types import Candidates
from tests.adversary import member_cases as cases
from tests.adversary.label_cases import client


def scores(view, known=cases.KNOWN):
    return update_lira(view, known, generator(0))


def view_of(local=cases.GRADIENT):
    return client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], local)


@pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS])
def test_it_is_the_ratio_of_two_gaussian_densities(local):
    view = view_of(local)
    work = workspace(view, cases.KNOWN)
    there = shadows(work, shadow_size(view.latest))
    asking = work.knowing(there.auxiliary)
    out = torch.stack([cosines(s.observation, work) for s in there.clients])
    pool = torch.stack([cosines(s.observation, asking) for s in there.clients])
    members = torch.stack([s.members for s in there.clients])
    labels = there.auxiliary.candidates.labels
    means, variances = (
        torch.stack([moment(pool[~members[:, r], r]) for r in range(len(labels))])
        for moment in (torch.mean, torch.var)
    )
    z = (pool - means) / (variances + 0.1 * variances.mean()).sqrt()
    gains = [
        z[k, r] - z[k, ~members[k] & (labels == labels[r])].mean()
        for k, r in members.nonzero().tolist()
    ]
    variance = out.var(dim=0)
    deviation = (variance + 0.1 * variance.mean()).sqrt()
    outside = torch.distributions.Normal(out.mean(dim=0), deviation)
    inside = torch.distributions.Normal(
        out.mean(dim=0) + deviation * sum(gains) / len(gains), deviation
    )
    s = cosines(view.latest, work)
    expected = inside.log_prob(s) - outside.log_prob(s)
    torch.testing.assert_close(scores(view), expected, rtol=1e-4, atol=1e-5)


def test_no_client_is_rehearsed_for_a_candidate(monkeypatch):
    trained = []

    def counted(like, auxiliary, model, clients, **options):
        clients = list(clients)
        trained.extend(inputs for inputs, _, _ in clients)
        return rehearse_each(like, auxiliary, model, clients, **options)

    rehearse_each = module.rehearse_each
    monkeypatch.setattr(module, "rehearse_each", counted)
    asked = Candidates(torch.randn(1000, 4), torch.arange(1000) % 3)
    known = replace(cases.KNOWN, candidates=asked)
    view = view_of()
    for _ in range(3):
        assert scores(view, known).shape == (1000,)
    assert len(trained) == SHADOWS["gradient"]
    used = torch.cat(trained)
    assert bool((used.unsqueeze(1) == cases.RECORDS[cases.ASKED :]).all(dim=2).any(dim=1).all())


@pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS])
def test_members_are_found(local):
    assert float(cases.aurocs(update_lira, local=local).mean()) > 0.6


def test_members_have_a_positive_ratio_more_often_than_others():
    views, truths = cases.round_of(1)
    found = torch.stack([scores(view) for view in views])
    members = torch.stack([truth.members for truth in truths])
    assert float(found[members].mean()) > 0 > float(found[~members].mean())


@pytest.mark.contract
def test_its_adaptive_self_rehearses_with_the_defense():
    defense = gaussian(std=0.3)
    (static, twin), gains = cases.gains_of_knowing("update-lira", defense)
    assert [(it.name, it.adaptive) for it in (static, twin)] == [
        ("update-lira", False), ("update-lira", True),
    ]  # fmt: skip
    assert sum(gains) / len(gains) > 0.01


@pytest.mark.slow
def test_an_adversary_that_knows_that_nothing_gets_through_says_so():
    noise = Defense(name="noise", apply=lambda p, s, g: (
        {n: torch.randn(v.shape, generator=g) for n, v in p.items()}, s,
    ))  # fmt: skip
    found, static = [], []
    for seed in range(10):
        views, truths = cases.round_of(seed)
        latest, stream = views[0].latest, generator(seed, "noise")
        delta = {n: torch.randn(v.shape, generator=stream) for n, v in latest.sent.items()}
        view = replace(
            views[0], observations=[replace(latest, update=replace(latest.update, delta=delta))]
        )
        for known, values in ((replace(cases.KNOWN, defense=noise), found), (cases.KNOWN, static)):
            guess = scores(view, known)
            values.append(float(guess.abs().max()))
            grade_members(guess, truths[0])
    assert max(found) < 0.5  # nats, for the surest candidate
    assert min(static) > max(found)
