import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks import ATTACKS
from adversary.costs import FIXED, Cost, allocation, beyond_memory, of_descent
from adversary.grading.answers import attack_view
from adversary.inversion.chain import chain
from adversary.inversion.solutions import cost
from fedsim.core.types import Auxiliary
from tests.adversary.inversion.inversion_cases import gradient, images, net, view

GIGA = 1e9


def first_layer(size):
    [layer] = chain(nn.Sequential(nn.Conv2d(3, 12, 5, 2, 2)), (3, size, size))
    return layer


def test_a_large_picture_takes_less_than_its_dense_matrix_would():
    dense = [(3 * size**2) ** 2 * 8 for size in (32, 64, 224)]
    costs = [cost(first_layer(size)) for size in (32, 64, 224)]
    assert costs[0].num_bytes >= dense[0]
    assert dense[2] > 180 * GIGA  # what its matrix alone would take
    assert max(costs[1].num_bytes, costs[2].num_bytes) < 0.5 * GIGA
    assert costs[1].seconds < costs[2].seconds < 600


def test_the_words_have_time_and_memory():
    assert str(Cost(90.0, 2e9)) == "90 s and 2 GB of memory"
    assert str(Cost(600.0, 2e9)) == "10 min and 2 GB of memory"
    assert str(Cost(None, 2.25e9)) == "2.2 GB of memory"


@pytest.mark.parametrize("free", [None, 0, 10**10])
def test_the_limit_is_the_users_or_half_of_what_is_free(free, monkeypatch):
    monkeypatch.setattr("adversary.costs.free_memory", lambda: free)
    needed = Cost(90.0, 6 * GIGA)
    assert beyond_memory("joint", needed, 7 * GIGA) == ""
    text = beyond_memory("joint", needed, GIGA)
    assert text == ("attack.joint.memory: must be at least 6 GB as estimated, got 1 GB")
    assert bool(beyond_memory("joint", needed, None)) == (free is not None)
    assert "half of what is free" in beyond_memory("joint", needed, None) or free is None


def seen():
    model = net(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 5)).float()
    x = images(1, 1, 8, 8).float()
    return view(model, gradient(model, x, torch.tensor([1])), 1), Auxiliary(
        model, 5, input_shape=(1, 8, 8)
    )


@pytest.mark.parametrize(
    "name", ["r-gap", "hybrid", "joint", "dlg", "idlg-inversion", "inverting-gradients",
             "see-through-gradients"],
)  # fmt: skip
def test_every_large_attack_is_refused_with_its_estimate(name):
    observed, auxiliary = seen()
    attack = replace(ATTACKS[name], memory=100.0)
    [answer] = attack_view(observed, [attack], auxiliary, 0)
    assert answer.refused
    assert answer.guess is None
    assert re.fullmatch(
        rf"attack\.{name}\.memory: must be at least [0-9.]+ GB as estimated, got 1e-07 GB",
        answer.reason or "",
    )


def test_an_attack_with_enough_memory_answers():
    observed, auxiliary = seen()
    [answer] = attack_view(observed, [replace(ATTACKS["r-gap"], memory=GIGA)], auxiliary, 0)
    assert answer.guess is not None


def test_more_restarts_take_more_and_wider_numbers_too():
    model = net(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 5))
    single = {"rows": 1, "dtype": torch.float32}
    estimate = of_descent(model, (1, 8, 8), 2, **single)
    more = of_descent(model, (1, 8, 8), 2, **{**single, "rows": 3})
    wide = of_descent(model, (1, 8, 8), 2, rows=1, dtype=torch.float64)
    assert more.num_bytes - FIXED == pytest.approx(3 * (estimate.num_bytes - FIXED))
    assert wide.num_bytes - FIXED == pytest.approx(2 * (estimate.num_bytes - FIXED))


def test_no_estimate_is_made_of_a_model_that_does_not_run():
    assert of_descent(nn.Linear(3, 2), (4,), 1, rows=1, dtype=torch.float32) is None


def test_an_estimate_draws_no_random_numbers():
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    state = torch.get_rng_state()
    assert of_descent(model, (4,), 1, rows=1, dtype=torch.float32) is not None
    torch.testing.assert_close(torch.get_rng_state(), state)


def test_options_are_those_that_the_attack_runs_with():
    cost = lambda auxiliary, count, options: Cost(None, options["restarts"])
    estimate = replace(ATTACKS["joint"], cost=cost).estimate(Auxiliary(nn.Identity(), 2), 1)
    assert estimate is not None
    assert estimate.num_bytes == 1


def test_a_refused_allocation_is_one_sentence():
    text = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    assert "181 GB more" in allocation(RuntimeError(f"{text}181000000000 bytes. Error code 12"))
    assert allocation(MemoryError()).startswith("memory: must suffice")
    assert allocation(RuntimeError("shape")) == ""
    assert allocation(ValueError("allocate memory")) == ""
