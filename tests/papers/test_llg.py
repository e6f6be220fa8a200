"""LLG's figures in papers/label.md, section 1.5, measured there with the official code."""

import pytest

from adversary.attacks.llg import llg, llg_plus, llg_star
from adversary.grading.families import FAMILIES
from fedsim.core.rng import generator
from tests.benchmarks.labels import Cell, trial

pytestmark = pytest.mark.paper

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
UNTRAINED = {
    "unb": (1.0, 0.883, 0.867, 0.892, 0.885, 0.847, 0.837, 0.855),
    "iid": (1.0, 0.887, 0.888, 0.870, 0.859, 0.852, 0.853, 0.855),
}


def rate(attack, cell, *, trials, model_seeds):
    """Return an attack's mean ASR."""
    rates = []
    for seed in range(trials):
        view, auxiliary, truth = trial(cell, seed, model_seeds=model_seeds)
        guess = attack(view, auxiliary, generator(seed, "attack"))
        rates.append(FAMILIES["label"].grade(guess, truth)["asr"])
    return sum(rates) / trials


def untrained(labels, size):
    return Cell(f"{labels} {size}", model="lenet", labels=labels, size=size)


@pytest.mark.parametrize("labels", UNTRAINED)
def test_llg_on_untrained_models(labels):
    found = [rate(llg, untrained(labels, size), trials=120, model_seeds=60) for size in SIZES]
    figures = UNTRAINED[labels]
    # Six initialisations there, and one differs from the next by 0.08 to 0.1: a figure alone has a
    # standard error of 0.035 to 0.04: two of them.
    assert found == pytest.approx(figures, abs=0.08)
    assert sum(found) / len(SIZES) == pytest.approx(sum(figures) / len(SIZES), abs=0.04)


@pytest.mark.parametrize("labels", UNTRAINED)
@pytest.mark.parametrize("size", SIZES)
def test_llg_plus_on_untrained_models(size, labels):
    found = rate(llg_plus, untrained(labels, size), trials=20, model_seeds=10)
    assert found >= 0.98  # 0.995 to 1 there


@pytest.mark.xdist_group("3000 steps")  # which are trained once
@pytest.mark.parametrize(("attack", "figure"), [(llg, 0.66), (llg_star, 0.42), (llg_plus, 0.63)])
def test_degradation_after_3000_steps(attack, figure):
    cell = Cell("3000 steps", model="lenet", steps=3000, batch=8, size=8)
    assert rate(attack, cell, trials=80, model_seeds=1) == pytest.approx(figure, abs=0.04)
