from dataclasses import replace

import pytest
import torch

from adversary.members.shadows import SHADOWS, shadow_size, shadows, shown
from defenses import chain, clip, mixup
from fedsim.core.rng import generator
from tests.adversary import member_cases as cases
from tests.adversary.label_cases import client
from tests.builders import norms, same_params, work_at


def there(known=cases.KNOWN, local=cases.GRADIENT, size=16):
    return shadows(work_at(known, cases.SENT, local), size)


def test_a_shadow_client_uploads_what_its_examples_make():
    found = there()
    assert len(found.clients) == SHADOWS["gradient"]
    asked = found.auxiliary.candidates
    for shadow in found.clients[:5]:
        view = client(cases.MODEL, shadow.inputs, shadow.labels, cases.GRADIENT)
        for name, value in view.latest.update.delta.items():
            torch.testing.assert_close(shadow.observation.update.delta[name], value)
        inside = (asked.inputs.unsqueeze(1) == shadow.inputs).all(dim=2).any(dim=1)
        assert torch.equal(inside, shadow.members)


def test_the_same_clients_are_drawn_again_and_differ_in_their_labels():
    first, again = (there(replace(cases.KNOWN)) for _ in range(2))
    for one, other in zip(first.clients, again.clients, strict=True):
        assert same_params(one.observation.update.delta, other.observation.update.delta)
    shares = torch.stack([torch.bincount(s.labels, minlength=3) for s in first.clients]) / 16
    assert float(shares.max(dim=1).values.mean()) > 0.5


@pytest.mark.parametrize(("told", "size"), [(1, 1), (16, 16), (19, 16), (20, 23), (1000, 1024)])
def test_clients_of_about_the_same_size_share_their_shadows(told, size):
    latest = cases.round_of(0)[0][0].latest
    assert shadow_size(replace(latest, update=replace(latest.update, num_examples=told))) == size


def test_a_shadow_is_shown_as_its_defense_leaves_it():
    plain = there().clients[0]
    assert shown(plain, work_at(cases.KNOWN, cases.SENT)) is plain.observation
    for defense in (clip(bound=0.1), chain(mixup(), clip(bound=0.1))):
        knowing = replace(cases.KNOWN, defense=defense)
        shadow = there(knowing).clients[0]
        assert same_params(shadow.observation.update.delta, plain.observation.update.delta)
        work = work_at(knowing, cases.SENT, cases.GRADIENT)
        seen = shown(shadow, work).update.delta
        assert norms([seen])[0] == pytest.approx(0.1, rel=1e-4)
        assert same_params(seen, shown(shadow, work).update.delta)
        direct = clip(bound=0.1).apply(plain.observation.update.delta, {}, generator(0))[0]
        assert same_params(seen, direct) == (defense.gradient is None)
