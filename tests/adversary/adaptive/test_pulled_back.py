from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.adaptive.pulled_back import adjoint, pulled_back
from defenses import Defense, chain, gaussian, sign
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update
from tests.adversary.games.game_cases import rotation

MODEL = nn.Linear(3, 2)  # six weights, two biases
NAMES = ["weight", "bias"]


def parts(*names):
    stream = generator(0, *names)
    return [torch.randn(2, 3, generator=stream), torch.randn(2, generator=stream)]


def flat(values):
    return torch.cat([value.flatten() for value in values])


def knowing(defense):
    return Auxiliary(MODEL, 2, defense=defense)


def observed(values):
    update = Update(1, "client", dict(zip(NAMES, values, strict=True)), 4)
    return Observation(MODEL.state_dict(), update, LocalTraining(0.1, 4, upload="gradient"))


def test_a_record_through_the_defense_scores_as_the_record_does_with_the_update_pulled_back():
    turn, record, upload = rotation(), parts("record"), parts("upload")
    pull = adjoint([parts("one"), parts("two")], NAMES, knowing(turn))
    moved = turn.apply(dict(zip(NAMES, record, strict=True)), None, generator(0))[0]
    through = float(flat(upload) @ flat(moved.values()))
    assert float(flat(pull(upload)) @ flat(record)) == pytest.approx(through, rel=1e-4)
    assert float(flat(upload) @ flat(record)) != pytest.approx(through, rel=0.1)
    torch.testing.assert_close(flat(pull(moved.values())), flat(record), rtol=1e-4, atol=1e-5)


def test_noise_that_does_not_look_at_the_update_changes_no_hypothesis():
    for defense in (chain(), gaussian(std=3.0)):
        pull = adjoint([parts("one")], NAMES, knowing(defense))
        torch.testing.assert_close(flat(pull(parts("upload"))), flat(parts("upload")))


def test_coins_that_act_on_the_update_are_averaged():
    def apply(params, state, stream):
        return {n: v * (torch.rand(v.shape, generator=stream) < 0.5) for n, v in params.items()}, (
            state
        )

    pull = adjoint([parts("one")], NAMES, knowing(Defense(name="dropped", apply=apply)))
    shares = flat(pull([torch.ones(2, 3), torch.ones(2)]))
    assert set(shares.tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert len(shares.unique()) > 2


def test_nothing_is_said_of_a_defense_that_autograd_does_not_see_through():
    leaves = lambda p, s, _: ({n: torch.from_numpy(v.numpy().copy()) for n, v in p.items()}, s)
    writes = lambda p, s, _: ({n: v.mul_(2) for n, v in p.items()}, s)
    for defense in (
        Defense(name="leaves", apply=leaves), Defense(name="writes", apply=writes),
        sign(magnitude=1.0),
    ):  # fmt: skip
        assert adjoint([parts("one")], NAMES, knowing(defense)) is None
        seen = [observed(parts("one"))]
        assert pulled_back(seen, seen, knowing(defense)) == {}


def test_the_mean_upload_is_taken_off_first():
    seen = [observed(parts(k)) for k in range(20)]
    turn = rotation()
    through = [
        replace(one, update=replace(one.update, delta=turn.apply(one.update.delta, None, None)[0]))
        for one in seen
    ]
    readings = pulled_back(seen, through, knowing(turn))
    assert list(readings) == ["back", "whiten back"]
    upload = [through[0].update.delta[name] for name in NAMES]
    mean = torch.stack([flat(parts(k)) for k in range(20)]).mean(dim=0)
    torch.testing.assert_close(
        flat(readings["back"](upload)), flat(parts(0)) - mean, rtol=1e-4, atol=1e-5
    )
