import sys
from dataclasses import replace
from functools import partial

import pytest
import torch

from adversary.adaptive.corrections import PRIOR
from adversary.attacks.cosine_mia import cosine_mia
from adversary.attacks.whitened_mia import whitened_mia
from adversary.members.candidates import asking_of_auxiliary
from adversary.members.shadows import shadow_size, shadows
from adversary.workspace import workspace
from defenses import clip, gaussian
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, View
from tests.adversary import member_cases as cases
from tests.adversary.label_cases import client
from tests.builders import observe

module = sys.modules[whitened_mia.__module__]
FULL = partial(whitened_mia, covariance="full")
ASKED = cases.KNOWN.candidates


def scores(view, known=cases.KNOWN, **options):
    return whitened_mia(view, known, generator(0), **options)


def own():
    return cases.own_gradients(cases.MODEL, ASKED.inputs, ASKED.labels)


def covariance_by_hand():
    """Return auxiliary gradients' second moment with its floor, entry by entry."""
    known = asking_of_auxiliary(cases.KNOWN).candidates
    a = cases.own_gradients(cases.MODEL, known.inputs, known.labels)
    moment = a.T @ a / len(a)
    variances = moment.diagonal()
    return moment + torch.diag(0.1 * variances + 0.03 * variances.mean())


@pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS])
def test_the_full_covariance_is_inverted(local):
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], local)
    u = cases.flat(view.latest.update) * (-1 if local.upload == "weights" else 1)
    x = torch.linalg.solve(covariance_by_hand(), u)
    expected = own() @ (x / x.norm()) / own().norm(dim=1)
    torch.testing.assert_close(scores(view, covariance="full"), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS])
def test_the_diagonal_is_that_of_rehearsed_clients(local):
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], local)
    latest = view.latest
    there = shadows(workspace(view, cases.KNOWN), shadow_size(latest))
    seen = torch.stack([cases.flat(shadow.observation.update) for shadow in there.clients])
    mean, variance = seen.mean(dim=0), seen.var(dim=0, correction=0)
    sizes = [value.numel() for value in cases.MODEL.parameters()]
    within = torch.cat([part.mean().expand(len(part)) for part in variance.split(sizes)])
    floor = PRIOR / len(seen) * (within + variance.mean() / 100)
    x = (cases.flat(latest.update) - mean) / (variance + floor)
    x = -x if local.upload == "weights" else x
    expected = own() @ x / own().norm(dim=1)
    torch.testing.assert_close(scores(view), expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS])
def test_it_beats_the_cosine(local):
    cosine, diagonal, full = (
        cases.aurocs(infer, local=local) for infer in (cosine_mia, whitened_mia, FULL)
    )
    for better, lead in ((diagonal, 0.02), (full, 0.12)):
        gain = better - cosine
        assert float(gain.mean()) > lead
        assert float(gain.mean()) > 3 * float(gain.std()) / len(gain) ** 0.5


@pytest.mark.parametrize("factor", [3.0, 1e-10, 1e10])
def test_the_length_of_the_update_does_not_matter_to_the_full_covariance(factor):
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], cases.GRADIENT)
    longer = {name: factor * value for name, value in view.latest.update.delta.items()}
    again = observe(longer, 16, local=cases.GRADIENT, sent=view.latest.sent)
    torch.testing.assert_close(
        scores(again, covariance="full"), scores(view, covariance="full"), rtol=1e-3, atol=1e-4
    )


def test_what_a_known_example_explains_is_taken_out():
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], cases.GRADIENT)
    few = replace(cases.KNOWN, inputs=cases.RECORDS[-20:], labels=cases.LABELS[-20:])
    extra = client(cases.MODEL, few.inputs[:1], few.labels[:1], cases.GRADIENT).latest.update
    delta = {name: v + extra.delta[name] for name, v in view.latest.update.delta.items()}
    more = observe(delta, 17, local=cases.GRADIENT, sent=view.latest.sent)
    kept = []
    for infer in (FULL, cosine_mia):
        both = torch.stack([infer(seen, few, generator(0)) for seen in (view, more)])
        kept.append(float(torch.corrcoef(both)[0, 1]))
    assert kept[0] > 0.7
    assert kept[0] > kept[1] + 0.2


def test_no_more_gradients_are_held_than_there_is_room_for(monkeypatch):
    entries = sum(value.numel() for value in cases.MODEL.parameters())
    monkeypatch.setattr(module, "ENTRIES", 7 * entries + 1)
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], cases.GRADIENT)
    assert module._span(workspace(view, cases.KNOWN)).rows.shape == (7, entries)
    assert bool(torch.isfinite(scores(view, covariance="full")).all())


def test_an_update_of_zeros_says_nothing():
    zeros = {name: torch.zeros_like(value) for name, value in cases.MODEL.state_dict().items()}
    view = observe(zeros, 4, sent=cases.MODEL)
    for covariance in ("diagonal", "full"):
        assert float(scores(view, covariance=covariance).abs().max()) == 0


@pytest.mark.contract
@pytest.mark.parametrize(("defense", "lead"), [(clip(bound=0.1), 0.1), (gaussian(std=0.1), -0.01)])
def test_who_knows_the_defense_corrects_the_update_where_that_helps(defense, lead):
    (static, twin), gains = cases.gains_of_knowing("whitened-mia", defense)
    assert (static.adaptive, twin.adaptive) == (False, True)
    assert sum(gains) / len(gains) > lead


def test_the_full_covariance_needs_no_number_of_examples():
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], LocalTraining(0.1, 16))
    latest = view.latest
    untold = View([replace(latest, update=replace(latest.update, num_examples=None))])
    torch.testing.assert_close(scores(untold, covariance="full"), scores(view, covariance="full"))
    with pytest.raises(ValueError, match="num_examples: must be told by the client, got none"):
        scores(untold)
