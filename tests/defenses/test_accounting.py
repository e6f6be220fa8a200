import math

import dp_accounting
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from defenses.accounting import Accounting, num_steps, subsampled_epsilon
from defenses.promise import gaussian_epsilon
from fedsim.core.types import LocalTraining


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(1.0, 0.01, 1000), (4.0, 0.01, 10000), (0.5, 0.08, 390)]
)
def test_epsilon_is_dp_accountings(noise, rate, steps):
    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    fine, renyi = PLDAccountant(), RdpAccountant()
    epsilon = subsampled_epsilon(noise, rate, steps, 1e-5)
    assert epsilon == pytest.approx(fine.compose(event, steps).get_epsilon(1e-5), rel=1e-3)
    assert epsilon < renyi.compose(event, steps).get_epsilon(1e-5)


def test_epsilon_of_the_papers_example_is_below_its_moments_accountants():
    # Abadi et al., section 3.2: q = 0.01, σ = 4, δ = 1e-5, 10,000 steps: ε ≈ 1.26.
    orders = torch.arange(2, 65).tolist()
    event = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(4.0))
    moments = RdpAccountant(orders=orders).compose(event, 10000)._rdp
    papers = min(m + math.log(1e5) / (order - 1) for m, order in zip(moments, orders, strict=True))
    assert papers == pytest.approx(1.26, abs=0.005)
    assert subsampled_epsilon(4.0, 0.01, 10000, 1e-5) == pytest.approx(0.947, abs=1e-3)


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.01), (1.0, 0.5), (2.0, 0.1)])
def test_one_steps_epsilon_is_that_of_two_known_densities(noise, rate):
    """(1−q)·N(0, σ²) + q·N(1, σ²) exceeds e^ε·N(0, σ²) to the right of one point."""

    def excess(epsilon):
        edge = noise**2 * math.log((math.exp(epsilon) - 1 + rate) / rate) + 0.5
        tail = norm.sf(edge / noise)
        mixed = (1 - rate) * tail + rate * norm.sf((edge - 1) / noise)
        return mixed - math.exp(epsilon) * tail - 1e-5

    assert subsampled_epsilon(noise, rate, 1, 1e-5) == pytest.approx(
        brentq(excess, 0.0, 50.0), rel=1e-4
    )


def test_epsilon_where_sampling_gains_nothing_is_the_gaussian_mechanisms():
    assert subsampled_epsilon(2.0, 1.0, 4, 1e-5) == gaussian_epsilon(1.0, 1e-5)
    assert subsampled_epsilon(1e-3, 0.5, 1, 1e-5) == gaussian_epsilon(1e3, 1e-5)


def test_mu_is_known_where_sampling_gains_nothing():
    local = LocalTraining(0.1, 8, epochs=2)
    assert Accounting(2.0, 1e-5, "poisson").mu(local, 9, 3) is None
    assert Accounting(2.0, 1e-5, "poisson").mu(local, 8, 8) == 4**0.5
    assert Accounting(2.0, 1e-5, "shuffle").mu(local, 100, 8) == 4**0.5
    assert Accounting(2.0, 1e-5, "shuffle", apart=2.0).mu(local, 100, 8) == 2 * 4**0.5


def test_without_noise_epsilon_is_infinite_after_the_first_round():
    local = LocalTraining(0.1, 8)
    assert Accounting(0.0, 1e-5, "poisson").epsilon(local, 100, 0) == 0.0
    assert Accounting(0.0, 1e-5, "poisson").epsilon(local, 100, 1) == math.inf


def test_a_round_has_a_step_for_each_batch_and_one_for_a_gradient():
    assert num_steps(17, LocalTraining(0.1, 8, epochs=2)) == 6
    assert num_steps(17, LocalTraining(0.1, 8, epochs=2, upload="gradient")) == 1
