"""Attacks of other programs: refused where these are absent, held to the contract where not."""

import importlib.util

import pytest
import torch
from torch import nn

from adversary.adapters import ADAPTERS, breaching, leakpro
from adversary.grading.selection import build
from fedsim.config import Part
from fedsim.conformance import board, properties
from fedsim.core.errors import ConfigError, NotApplicable
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining
from tests.builders import observe, plain_gradient


def needs(package, install):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed ({install})")


needs_breaching = needs(breaching.PACKAGE, breaching.INSTALL)
needs_leakpro = needs(leakpro.PACKAGE, leakpro.INSTALL)
LABELS = [a for a in breaching.ATTACKS if a.family == "label"]
OVERCOUNTING = ("breaching:labels-wainakh-simple", "breaching:labels-bias-corrected")
NEARER = {  # config → steps in which a picture comes nearer than the mean one
    "invertinggradients": 200, "beyondinfering": 60, "modern": 200, "legacy": 200, "wei": 100,
    "analytic": None,
}  # fmt: skip
PICTURES = nn.functional.interpolate(  # smooth, as the total variation of most wants them
    torch.rand(12, 3, 3, 3, generator=generator(0, "colours")), size=8, mode="bilinear"
)
with global_stream(0, "colours"):
    MODEL = nn.Sequential(nn.Flatten(), nn.Linear(192, 60), nn.ReLU(), nn.Linear(60, 5))
KNOWS = Auxiliary(MODEL, 5, inputs=PICTURES[2:], labels=torch.arange(10) % 5)


def shown(*, noise=False):
    """Return the view of a client with one picture in colours, or of noise in its place."""
    gradient = plain_gradient(MODEL, PICTURES[:1], torch.tensor([1]))
    if noise:
        stream = generator(0, "noise")
        gradient = {k: torch.randn(v.shape, generator=stream) for k, v in gradient.items()}
    return observe(gradient, 1, sent=MODEL)


def nearer(guess):
    mean, true = PICTURES[2:].mean(dim=0), PICTURES[0]
    assert guess.shape == (1, 3, 8, 8)
    return float((mean - true).norm() / (guess[0].clamp(0, 1) - true).norm())


def labels_of(strategy, labels):
    """Return breaching's counts for a batch of these labels on the board."""
    rows = torch.tensor([int((board.CANDIDATES.labels == it).nonzero()[k]) for k, it in labels])
    view = observe(board.gradient_of(rows), len(rows), sent=board.SENT)
    attack = ADAPTERS[f"breaching:labels-{strategy}"]
    return attack.infer(view, board.AUXILIARY, generator(0)).tolist()


@pytest.mark.parametrize("name", ["breaching:labels-yin", "leakpro:invertinggradients"])
def test_an_absent_package_is_one_sentence_before_anything_runs(name, monkeypatch):
    monkeypatch.setattr("adversary.adapters.is_installed", lambda _: False)
    with pytest.raises(ConfigError, match=f"'{name}' needs .* must be installed"):
        build([Part(name=name)], board.KNOWS)
    monkeypatch.setattr("adversary.adapters.package.is_installed", lambda _: False)
    with pytest.raises(NotApplicable, match="must be installed"):
        ADAPTERS[name].infer(board.picture(0), board.KNOWS, generator(0))


def test_a_typo_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'breaching:invertinggradients'"):
        build([Part(name="breaching:invertinggradient")], board.KNOWS)


@needs_breaching
@pytest.mark.parametrize("attack", LABELS, ids=lambda it: it.name)
def test_label_strategies_keep_the_contract(attack):
    assert properties.valid_answers(attack) is None
    assert properties.same_seed(attack) is None
    assert properties.view_untouched(attack) is None
    assert properties.refuses_not_finite(attack) is None


@pytest.mark.slow
@needs_breaching
@pytest.mark.parametrize("attack", LABELS, ids=lambda it: it.name)
def test_label_strategies_beat_blind_and_have_no_advantage_on_noise(attack):
    assert properties.beats_blind(attack) is None
    if attack.name in OVERCOUNTING:  # on noise they name more labels than there are examples
        view, _ = board.trial(0, independent=True)
        with pytest.raises(ValueError, match="labels: must be 1, got"):
            attack.infer(view, board.AUXILIARY, generator(0))
    else:
        assert properties.chance_without_data(attack) is None


@needs_breaching
def test_where_label_strategies_err():
    distinct, repeated = [(0, 1), (0, 5), (0, 8)], [(0, 1), (1, 1), (2, 1), (0, 5)]
    for strategy in ("analytic", "yin", "wainakh-simple", "bias-corrected"):
        assert labels_of(strategy, distinct) == [0, 1, 0, 0, 0, 1, 0, 0, 1, 0], strategy
    assert labels_of("bias-corrected", repeated) == [0, 3, 0, 0, 0, 1, 0, 0, 0, 0]
    assert max(labels_of("yin", repeated)) == 1  # names each class once
    pairs = [(k, it) for it in (1, 5, 8) for k in (0, 1)]
    counts = labels_of("wainakh-simple", pairs)  # takes the impact off another class than it chose
    assert sorted(counts)[-3:] == [1, 1, 4]


@pytest.mark.slow
@needs_breaching
@pytest.mark.parametrize("config", NEARER)
def test_a_picture_comes_nearer_and_noise_gives_none(config):
    attack = ADAPTERS[f"breaching:{config}"]
    options = {"iterations": NEARER[config], "restarts": 1}
    first, second = (attack.infer(shown(), KNOWS, generator(0), **options) for _ in range(2))
    assert torch.equal(first, second)
    assert nearer(first) > 1.2
    on_noise = attack.infer(shown(noise=True), KNOWS, generator(0), labels="fedsim", **options)
    assert nearer(on_noise) < 1.2


@needs_breaching
def test_where_inversions_err():
    attack = ADAPTERS["breaching:invertinggradients"]
    with pytest.raises(ValueError, match="batch_size"):  # its labels are more than the examples
        attack.infer(shown(noise=True), KNOWS, generator(0), iterations=2)


@pytest.mark.slow
@needs_breaching
def test_fedsims_labels_can_take_the_place_of_breachings():
    attack = ADAPTERS["breaching:beyondinfering"]
    guess = attack.infer(shown(), KNOWS, generator(0), iterations=60, labels="fedsim")
    assert nearer(guess) > 1.2


@needs_leakpro
def test_leakpros_inverting_gradients():
    attack = leakpro.ATTACKS[0]
    first, second, on_noise = (
        attack.infer(view, KNOWS, generator(0), iterations=150)
        for view in (shown(), shown(), shown(noise=True))
    )
    assert torch.equal(first, second)
    assert nearer(first) > 1.2
    assert nearer(on_noise) < 1.2
    assert properties.view_untouched(attack) is None


@pytest.mark.parametrize("name", ["breaching:legacy", "leakpro:invertinggradients"])
def test_what_they_cannot_read_is_refused(name, monkeypatch):
    for module in (breaching, leakpro):
        monkeypatch.setattr(module, "check_installed", lambda *_: None)
    local = LocalTraining(lr=0.1, batch_size=1, epochs=3, upload="weights")
    gradient = plain_gradient(MODEL, PICTURES[:1], torch.tensor([1]))
    with pytest.raises(NotApplicable, match="must be one step"):
        ADAPTERS[name].infer(observe(gradient, 2, local=local, sent=MODEL), KNOWS, generator(0))
    broken = {k: v / 0 for k, v in gradient.items()}
    with pytest.raises(ValueError, match="finite"):
        ADAPTERS[name].infer(observe(broken, 1, sent=MODEL), KNOWS, generator(0))
