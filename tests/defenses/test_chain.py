import dataclasses

import pytest
import torch

from defenses import Defense, chain, clip, gaussian
from fedsim.core.rng import generator
from tests.builders import sticky


def test_a_chain_runs_in_order():
    double = Defense(name="double", apply=lambda p, s, g: ({n: 2 * v for n, v in p.items()}, s))
    first, _ = chain(double, clip(bound=1.0)).apply({"w": torch.ones(1)}, {}, generator(0))
    second, _ = chain(clip(bound=1.0), double).apply({"w": torch.ones(1)}, {}, generator(0))
    assert float(first["w"]) == pytest.approx(1)
    assert float(second["w"]) == pytest.approx(2)


def test_each_defense_of_a_chain_keeps_its_own_state():
    both = chain(sticky(), clip(bound=100.0), sticky(pull=0.0))
    update = {"w": torch.ones(2)}
    state = both.init(update)
    assert set(state) == {"0.w", "2.w"}
    once, state = both.apply(update, state, generator(0))
    twice, state = both.apply(update, state, generator(0))
    assert float(once["w"][0]) == 0.5
    assert float(twice["w"][0]) == 0.75
    assert float(state["2.w"][0]) == 0.75


def test_only_one_defense_may_replace_the_gradient():
    hook = dataclasses.replace(clip(), gradient=lambda *_: [])
    assert chain(gaussian(), hook).gradient is hook.gradient
    with pytest.raises(
        ValueError, match="at most one defense may replace the gradient, got clip and clip"
    ):
        chain(hook, hook)
