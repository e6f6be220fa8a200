"""Every defense by itself: honest ones pass, and each planted bug has its own sentence."""

import pytest
import torch
from torch import nn

from defenses import dp_sgd
from fedsim.audit import sampling
from fedsim.audit.links import check_links
from fedsim.audit.noise import doubt
from fedsim.config import Part
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import LocalTraining

LOCAL = LocalTraining(0.1, 8, 1, "gradient")
DRAWN = LocalTraining(0.1, 4, 2, "weights")
EXAMPLES = 12


def said(*parts, local=LOCAL):
    with global_stream(0, "links"):
        model = nn.Sequential(nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 3))
    return check_links(parts, model, local, EXAMPLES)


def test_honest_defenses_are_what_they_claim():
    found = said(
        Part(name="clip", bound=0.7), Part(name="gaussian", std=0.2), Part(name="prune", rate=0.5)
    )
    assert [(check.link, check.holds) for check in found] == [
        ("clip (link 1 of 3)", True), ("gaussian (link 2 of 3)", True),
    ]  # fmt: skip
    assert found[0].measured == "norm at most 0.7, claims 0.7"
    for drawn in ("poisson", "shuffle"):
        part = Part(name="dp-sgd", clip=0.5, noise=0.8, sampling=drawn)
        checks = said(part, local=DRAWN)
        assert all(check.holds for check in checks), checks
        heads = ["one", "one", "one", "noise", *(["takes"] if drawn == "poisson" else [])]
        assert [check.measured.split()[0] for check in checks] == heads
        assert "new in every run" in checks[3].measured


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("half_noise", {"noise": 1.0}, "noise too small: claims a standard deviation of 0.125"),
        ("half_gaussian", {"std": 0.5}, "noise too small: claims a standard deviation of 0.5"),
        ("late_clip", {"noise": 1.0}, "clips after averaging: one example of 8 moves the gradient"),
        ("no_clip", {"bound": 0.5}, "does not clip: claims a norm of at most 0.5, got 50"),
        ("tests.planted:forgotten_bias", {"std": 0.5}, "noise too small on 2.bias: claims a stand"),
        ("tests.planted:rare_failure", {"std": 0.5}, "adds too little noise in "),
        ("tests.planted:by_count", {"noise": 1.0}, "divides by the number of examples that came"),
        ("tests.planted:clipped_pairs", {"noise": 1.0}, "clips sums of several examples: one"),
        ("tests.planted:unsampled", {"noise": 1.0}, "takes the same batch in 192 of 192 pairs"),
        ("tests.planted:shuffled", {"noise": 1.0}, "does not sample each record by itself: 384 "),
        ("tests.planted:sampled_once", {"noise": 1.0}, "takes the same batch in 192 of 192 pairs"),
        ("tests.planted:one_draw", {"std": 0.5}, "adds the same noise to several entries of "),
        ("tests.planted:same_seeds", {"std": 0.5}, "adds the same noise to 0."),
        ("tests.planted:touched_only", {"std": 0.5}, "on an update of zeros, noise too small"),
        ("tests.planted:uniform", {"std": 0.5}, "adds noise that is not normal"),
        ("tests.planted:half_precision", {"std": 0.5}, "adds noise in half precision"),
        ("same_noise", {"std": 0.5}, "reuses its noise: 100 % of it is the same in every run"),
        ("remembered_noise", {"std": 0.5}, "reuses its noise: 100 % of it is the same in every"),
    ],
)
def test_a_planted_bug_is_named(name, options, sentence):
    name = name if ":" in name else f"tests.broken:{name}"
    checks = said(Part(name=name, **options), local=DRAWN)
    check = next(check for check in checks if not check.holds)
    assert check.measured.startswith(sentence)
    assert check.link == f"{name} (link 1 of 1)"


@pytest.mark.slow
def test_honest_noise_is_seldom_doubted():
    sizes, alarms = {"weight": 60, "bias": 3, "scale": 1}, 0
    for seed in range(200):
        noise = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(seed))
        alarms += doubt({"run": noise[0], "round": noise[1]}, 1.0, sizes).p <= 0.05
    assert alarms <= 19  # of a level of 5 %, more have a chance of 0.4 %


@pytest.mark.slow
def test_honest_sampling_is_seldom_doubted(monkeypatch):
    link, alarms = dp_sgd(), 0
    for seed in range(200):
        monkeypatch.setattr(
            sampling, "generator", lambda _, *names, seed=seed: generator(seed, *names)
        )
        alarms += sampling.sampling_doubt(link, DRAWN, EXAMPLES).p <= 0.05
    assert alarms <= 19  # as above
