"""Error rates against the curve of subsampled steps: honest ones fit it, unsampled ones do not."""

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom

from adversary.auditing.claim import Claim
from adversary.auditing.finding import SAMPLED
from adversary.auditing.subsampled import epsilon_shown, subsampled
from adversary.auditing.trials import Trials
from defenses.accounting import Sampled
from defenses.promise import Relation

STEPS = Sampled(noise=1.0, rate=0.5, steps=2, replaced=False)
CLAIM = Claim(
    relation=Relation.ADD_OR_REMOVE_EXAMPLE,
    delta=1e-5,
    epsilon=STEPS.epsilon(1e-5),
    sampled=STEPS,
    rounds=1,
)


def trials(count, seed, *, rate=STEPS.rate):
    """The sum of both steps' sums, in clips, about its middle."""
    stream = np.random.default_rng(seed)
    noise = STEPS.noise * STEPS.steps**0.5 * stream.standard_normal((2, count))
    drawn = stream.binomial(STEPS.steps, rate, count)
    return Trials(noise[0] - rate, noise[1] + drawn - rate)


@pytest.mark.slow
@pytest.mark.theorem
def test_a_bound_of_honest_steps_exceeds_the_claim_in_one_of_twenty_audits_at_most():
    findings = [subsampled(trials(300, seed), CLAIM, 0.95) for seed in range(100)]
    wrong = sum(finding.exceeds(CLAIM.epsilon, CLAIM.relation) for finding in findings)
    assert binom.sf(wrong - 1, 100, 0.05) > 1e-3
    assert {finding.assumes for finding in findings} == {SAMPLED}


def test_steps_that_take_the_canary_always_are_refuted():
    finding = subsampled(trials(2000, 0, rate=1.0), CLAIM, 0.99)
    assert finding.exceeds(CLAIM.epsilon, CLAIM.relation)
    assert finding.epsilon <= finding.most


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_exact_rates_of_a_step_without_sampling_show_its_noise(noise):
    claimed = Sampled(noise=2.0, rate=1 - 1e-9, steps=1, replaced=False)
    wrong = float(ndtr(-1 / (2 * noise)))
    right = Sampled(noise=noise, rate=1 - 1e-9, steps=1, replaced=False).epsilon(1e-5)
    assert epsilon_shown(claimed, wrong, wrong, 1e-5) == pytest.approx(right, rel=0.03)


def test_a_test_that_always_errs_shows_nothing():
    assert epsilon_shown(STEPS, 1.0, 1.0, 1e-5) == 0.0
    assert epsilon_shown(STEPS, 0.5, 0.5, 1e-5) == 0.0


def test_another_claim_has_no_curve():
    with pytest.raises(ValueError, match="claim: must be of subsampled steps to have their curve"):
        subsampled(trials(50, 0), Claim(relation=CLAIM.relation, delta=1e-5, epsilon=1.0), 0.95)
