from dataclasses import replace

import pytest
import torch

from adversary.attacks.user_ratio import gains, user_ratio
from adversary.secrets import prior
from adversary.workspace import workspace
from fedsim.core.rng import generator
from fedsim.core.secrets import Rules
from fedsim.core.types import Auxiliary, LocalTraining, View
from tests.adversary.attacks import test_shadow_inference as cases
from tests.adversary.label_cases import client
from tests.builders import bilinear

WEIGHTS = LocalTraining(0.2, 5, epochs=4)
USERS, OWN = 5, 60
MODEL = bilinear(3, features=24)
SENT = {name: value.clone() for name, value in MODEL.state_dict().items()}
WHOSE = torch.arange(2 * USERS * OWN) % USERS
STREAM = generator(0, "users")
HABITS = torch.randint(3, (USERS, 8), generator=STREAM)  # which label a user gives to what it sees
KINDS = torch.randint(8, (len(WHOSE),), generator=STREAM)
INPUTS = torch.randn(8, 4, generator=STREAM)[KINDS] + 0.2 * torch.randn(
    len(WHOSE), 4, generator=STREAM
)
LABELS = HABITS[WHOSE, KINDS]
HALF = len(WHOSE) // 2
KNOWN = Auxiliary(MODEL, 3, inputs=INPUTS[HALF:], labels=LABELS[HALF:], rules=Rules(1, users=USERS),
                  marks={"user": WHOSE[HALF:]})  # fmt: skip


def round_of(seed, local):
    """Return the views of one client per user."""
    seen = []
    for user in range(USERS):
        own = torch.nonzero(WHOSE[:HALF] == user)[:, 0]
        own = own[torch.randperm(len(own), generator=generator(seed, user))[:20]]
        [found] = client(MODEL, INPUTS[own], LABELS[own], local, seed=seed).observations
        update = replace(found.update, client=str(user))
        seen.append(replace(found, sent=SENT, update=update))
    return [View([one], [seen]) for one in seen]


def infer(view):
    return user_ratio(view, KNOWN, generator(0))


@pytest.mark.parametrize("local", [cases.GRADIENT, WEIGHTS])
def test_it_names_the_user_of_most_clients(local):
    named = [int(infer(view).argmax()) == user
             for seed in range(4) for user, view in enumerate(round_of(seed, local))]  # fmt: skip
    assert sum(named) >= 16


@pytest.mark.parametrize("local", [cases.GRADIENT, WEIGHTS])
def test_gains_are_how_much_likelier_each_users_records_become(local):
    view, small = round_of(0, local)[1], 1e-4
    seen = view.latest
    step = -small if local.upload == "gradient" else 1.0
    for user, gain in enumerate(gains(seen, workspace(view, KNOWN))):
        rows = torch.nonzero(WHOSE[HALF:] == user)[:, 0] + HALF
        loss = []
        for move in (0.0, step):
            moved = {n: v.double() + move * seen.update.delta[n] for n, v in SENT.items()}
            logits = torch.func.functional_call(MODEL, moved, (INPUTS[rows].double(),))
            loss.append(float(torch.nn.functional.cross_entropy(logits, LABELS[rows])))
        expected = (loss[0] - loss[1]) / abs(step)
        assert float(gain) == pytest.approx(expected, rel=2e-3, abs=1e-4)


def test_alone_in_its_round_a_client_is_judged_without_others():
    view = round_of(0, WEIGHTS)[2]
    z = gains(view.latest, workspace(view, KNOWN))
    z = (z - z.mean()) / z.std()
    expected = (z + prior("user", view, KNOWN)).log_softmax(dim=0)
    torch.testing.assert_close(infer(View(view.observations)), expected)


def test_a_client_that_uploads_what_is_not_finite_is_no_reference():
    view = round_of(0, WEIGHTS)[2]
    broken = {n: torch.full_like(v, torch.nan) for n, v in view.latest.update.delta.items()}
    bad = replace(view.cohort[0], update=replace(view.cohort[0].update, delta=broken))
    spoilt = View(view.observations, [[bad, *view.cohort[1:]]])
    fewer = View(view.observations, [view.cohort[1:]])
    assert torch.equal(infer(spoilt), infer(fewer))


def test_an_update_of_nothing_leaves_the_prior():
    view = View(round_of(0, cases.GRADIENT)[1].observations)
    nothing = {n: torch.zeros_like(v) for n, v in view.latest.update.delta.items()}
    still = replace(view.latest, update=replace(view.latest.update, delta=nothing))
    torch.testing.assert_close(infer(View([still])), prior("user", view, KNOWN))


def test_an_update_that_is_not_finite_is_refused():
    view = round_of(0, cases.GRADIENT)[1]
    broken = {n: torch.full_like(v, torch.inf) for n, v in view.latest.update.delta.items()}
    with pytest.raises(ValueError, match="finite"):
        infer(View([replace(view.latest, update=replace(view.latest.update, delta=broken))]))
