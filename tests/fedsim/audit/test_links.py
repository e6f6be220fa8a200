"""Every defense by itself: honest ones pass, and each planted bug has its own sentence."""

import pytest
from torch import nn

from fedsim.audit.links import check_links
from fedsim.config import Part
from fedsim.core.rng import global_stream
from fedsim.core.types import LocalTraining

LOCAL = LocalTraining(0.1, 8, 1, "gradient")


def said(*parts):
    with global_stream(0, "links"):
        model = nn.Sequential(nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 3))
    return check_links(parts, model, LOCAL)


def test_honest_defenses_are_what_they_claim():
    found = said(
        Part(name="clip", bound=0.7), Part(name="gaussian", std=0.2), Part(name="prune", rate=0.5)
    )
    assert [(check.link, check.holds) for check in found] == [
        ("clip (link 1 of 3)", True), ("gaussian (link 2 of 3)", True),
    ]  # fmt: skip
    assert found[0].measured == "norm at most 0.7, claims 0.7"
    for sampling in ("poisson", "shuffle"):
        (check,) = said(Part(name="dp-sgd", clip=0.5, noise=0.8, sampling=sampling))
        assert check.holds, check.measured
        assert "new in every run" in check.measured


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("half_noise", {"noise": 1.0}, "noise too small: claims a standard deviation of 0.125"),
        ("half_gaussian", {"std": 0.5}, "noise too small: claims a standard deviation of 0.5"),
        ("late_clip", {"noise": 1.0}, "clips after averaging: one example of 8 moves the gradient"),
        ("no_clip", {"bound": 0.5}, "does not clip: claims a norm of at most 0.5, got 50"),
        ("same_noise", {"std": 0.5}, "reuses its noise: 100 % of it is the same in every run"),
        ("remembered_noise", {"std": 0.5}, "reuses its noise: 100 % of it is the same in every"),
    ],
)
def test_a_planted_bug_is_named(name, options, sentence):
    (check,) = said(Part(name=f"tests.broken:{name}", **options))
    assert not check.holds
    assert check.measured.startswith(sentence)
    assert check.link == f"tests.broken:{name} (link 1 of 1)"
