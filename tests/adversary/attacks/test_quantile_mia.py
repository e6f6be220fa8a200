import pytest
import torch

from adversary.attacks.cosine_mia import cosine_mia
from adversary.attacks.quantile_mia import quantile, quantile_mia
from adversary.members.candidates import asking_of_auxiliary, cosines
from adversary.workspace import workspace
from fedsim.core.rng import generator
from tests.adversary import member_cases as cases

STREAM = generator(0, "quantile")
CLASSES = torch.nn.functional.one_hot(torch.arange(200) % 2, 2).double()
FEATURES = torch.cat([CLASSES, torch.rand(200, 1, generator=STREAM, dtype=torch.float64)], dim=1)
SCORES = torch.randn(200, generator=STREAM, dtype=torch.float64)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9, 0.98])
def test_in_every_class_that_share_is_below(level):
    found = quantile(FEATURES, FEATURES, SCORES, level)
    for label in (0, 1):
        mine = FEATURES[:, label] == 1
        below, reached = (
            float(compare(SCORES[mine], found[mine] + slack).double().mean())
            for compare, slack in ((torch.lt, -1e-9), (torch.le, 1e-9))
        )
        assert below <= level <= reached


def test_without_features_it_is_the_quantile_itself():
    ones = torch.ones(5, 1, dtype=torch.float64)
    scores = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0], dtype=torch.float64)
    assert quantile(ones, ones, scores, 0.5).tolist() == pytest.approx([3.0] * 5)
    assert quantile(ones, ones, scores, 0.7).tolist() == pytest.approx([4.0] * 5)


def test_what_the_features_explain_of_a_score_changes_nothing():
    known = 5 * FEATURES[:, 2] - 3 * FEATURES[:, 1]
    plain, raised = (s - quantile(FEATURES, FEATURES, s, 0.9) for s in (SCORES, SCORES + known))
    torch.testing.assert_close(raised, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_the_scale_of_a_score_does_not_matter(factor):
    found = quantile(FEATURES, FEATURES, factor * SCORES, 0.9)
    torch.testing.assert_close(found / factor, quantile(FEATURES, FEATURES, SCORES, 0.9))


def test_of_records_that_nobody_used_the_promised_share_is_named():
    views, truths = cases.round_of(0)
    shares = []
    for view, truth in zip(views, truths, strict=True):
        found = quantile_mia(view, cases.KNOWN, generator(0), fpr=0.2)
        shares.append(float((found[~truth.members] > 0).double().mean()))
    assert sum(shares) / len(shares) == pytest.approx(0.2, abs=0.06)


def test_auxiliary_records_are_above_their_own_thresholds_as_often_as_asked():
    view = cases.round_of(0)[0][0]
    others = asking_of_auxiliary(cases.KNOWN)
    assert asking_of_auxiliary(others).candidates.labels.shape == others.candidates.labels.shape
    found = quantile_mia(view, others, generator(0), fpr=0.1)
    assert float((found > 1e-9).double().mean()) <= 0.1
    assert found.shape == cosines(view.latest, workspace(view, others)).shape


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1])
def test_a_rate_out_of_range_is_refused(fpr):
    view = cases.round_of(0)[0][0]
    with pytest.raises(ValueError, match=r"fpr: must be in \(0, 1\), got"):
        quantile_mia(view, cases.KNOWN, generator(0), fpr=fpr)


@pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS])
def test_members_are_found_and_little_is_lost(local):
    found, plain = (
        cases.aurocs(infer, local=local, trials=5) for infer in (quantile_mia, cosine_mia)
    )
    assert float(found.mean()) > 0.6
    assert float((found - plain).mean()) > -0.04
