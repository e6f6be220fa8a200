import math
import warnings

import pytest
import torch
from torch import nn

from clients.train import train
from defenses import chain, clip, dp_sgd
from defenses.accounting import num_steps, subsampled_epsilon
from defenses.dp_sgd import clipped_sum, poisson
from defenses.promise import Relation, gaussian_epsilon
from fedsim import api, models
from fedsim.config import Model
from fedsim.core.errors import RunStopped
from fedsim.core.form import Form
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import LocalTraining
from tests.builders import bilinear, plain_gradient, small_config

pytestmark = pytest.mark.usefixtures("undrawn")

LOCAL = LocalTraining(lr=0.1, batch_size=8)
INPUTS = torch.randn(11, 4, generator=generator(0, "dp"))
LABELS = torch.arange(11) % 3


def parameters(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def naive(model, inputs, labels, bound, smoothing=0.0):
    """Clip and add one example after the other."""
    total = {name: torch.zeros_like(value) for name, value in parameters(model).items()}
    for x, y in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(
            model(x.unsqueeze(0)), y.unsqueeze(0), label_smoothing=smoothing
        )
        own = torch.autograd.grad(loss, list(parameters(model).values()))
        length = torch.cat([g.flatten() for g in own]).norm()
        for name, g in zip(total, own, strict=True):
            total[name] += g * min(1.0, bound / float(length))
    return total


def image_model(name):
    with global_stream(0, "image"):
        return models.build(Model(name=name), Form((1, 28, 28), 10), seed=0)


@pytest.mark.parametrize("bound", [0.01, 0.5, 1e9])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_sum_of_clipped_gradients_is_that_of_a_loop(bound, smoothing):
    model = bilinear(3)
    for microbatch in (1, 4, 64):
        found = clipped_sum(
            model, parameters(model), INPUTS, LABELS,
            clip=bound, label_smoothing=smoothing, microbatch=microbatch,
        )  # fmt: skip
        for name, value in naive(model, INPUTS, LABELS, bound, smoothing).items():
            torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_it_is_opacus(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer
    inputs = torch.rand(7, 1, 28, 28, generator=generator(1, "dp"))
    labels = torch.arange(7)
    ours = image_model(name)
    found = clipped_sum(ours, parameters(ours), inputs, labels, clip=0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = GradSampleModule(image_model(name))
        optimiser = DPOptimizer(
            torch.optim.SGD(theirs.parameters(), lr=1.0),
            noise_multiplier=0.0, max_grad_norm=0.7, expected_batch_size=10,
        )  # fmt: skip
        nn.functional.cross_entropy(theirs(inputs), labels).backward()
        optimiser.pre_step()
    for (name_, value), other in zip(found.items(), theirs.parameters(), strict=True):
        assert float((value / 10).sub(other.grad).abs().max()) < 1e-6, name_


def hook(defense, model, inputs, labels, *, local=LOCAL, seed=0):
    return defense.gradient(model, parameters(model), inputs, labels, local, generator(seed))


def test_the_sum_is_divided_by_the_batch_size_that_was_asked_for():
    model = bilinear(3)
    found = hook(dp_sgd(clip=0.5, noise=0.0), model, INPUTS, LABELS)
    for value, expected in zip(found, naive(model, INPUTS, LABELS, 0.5).values(), strict=True):
        torch.testing.assert_close(value, expected / 8)  # 11 examples came


def test_without_a_bound_and_noise_it_is_the_plain_gradient():
    model = bilinear(3)
    found = hook(dp_sgd(clip=1e9, noise=0.0), model, INPUTS[:8], LABELS[:8])
    expected = plain_gradient(model, INPUTS[:8], LABELS[:8])
    for value, plain in zip(found, expected.values(), strict=True):
        torch.testing.assert_close(value, plain)


@pytest.mark.parametrize("count", [0, 5])
def test_the_noise_has_its_standard_deviation_with_any_number_of_examples(count):
    model = nn.Linear(200, 100)
    inputs, labels = torch.zeros(count, 200), torch.zeros(count, dtype=torch.int64)
    quiet = hook(dp_sgd(clip=0.5, noise=0.0), model, inputs, labels)
    noisy = hook(dp_sgd(clip=0.5, noise=3.0), model, inputs, labels)
    draws = (noisy[0] - quiet[0]).flatten()
    std, size = 3.0 * 0.5 / 8, len(draws)
    assert abs(float(draws.std()) - std) < 4 * std / math.sqrt(2 * size)
    assert abs(float(draws.mean())) < 4 * std / math.sqrt(size)
    again = hook(dp_sgd(clip=0.5, noise=3.0), model, inputs, labels)
    assert all(torch.equal(a, b) for a, b in zip(noisy, again, strict=True))
    other = hook(dp_sgd(clip=0.5, noise=3.0), model, inputs, labels, seed=1)
    assert not torch.equal(noisy[0], other[0])


def test_dropout_is_drawn_for_each_example_and_repeats():
    model = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.Linear(50, 3))
    inputs = INPUTS[:1].repeat(2, 1)
    sums = []
    for seed in (0, 0, 1):
        with global_stream(seed, "dropout"):
            sums.append(
                clipped_sum(model, parameters(model), inputs, LABELS[[0, 0]], clip=1e9)["2.weight"]
            )
    assert torch.equal(sums[0], sums[1])
    assert not torch.equal(sums[0], sums[2])
    # One mask for both would use only half of the hidden units.
    assert int((sums[0].abs().sum(dim=0) > 0).sum()) > 30


def test_poisson_batches_hold_every_example_by_itself():
    local = LocalTraining(lr=0.1, batch_size=5, epochs=400)
    batches = poisson(20, local, generator(0))
    assert len(batches) == 400 * 4 == num_steps(20, local)
    sizes = torch.tensor([float(len(batch)) for batch in batches])
    assert abs(float(sizes.mean()) - 5) < 4 * math.sqrt(20 * 0.25 * 0.75 / 1600)
    assert abs(float(sizes.var()) - 20 * 0.25 * 0.75) < 0.6  # all of one size in a shuffle
    uses = torch.bincount(torch.cat(batches), minlength=20).double()
    assert float((uses - 400).abs().max()) < 4 * math.sqrt(1600 * 0.25 * 0.75)
    assert len(poisson(20, LocalTraining(0.1, 5, upload="gradient"), generator(0))) == 1


def test_training_goes_through_empty_batches():
    local = LocalTraining(lr=0.1, batch_size=1, epochs=30)
    defense, model = dp_sgd(clip=1.0, noise=0.1), bilinear(3)
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    batches = poisson(2, local, generator(0))
    assert any(len(batch) == 0 for batch in batches)
    state, used = train(
        model, sent, INPUTS[:2], LABELS[:2], local, generator=generator(0),
        gradient=defense.gradient, batches=defense.batches,
    )  # fmt: skip
    assert len(used) == sum(map(len, batches))
    assert all(torch.isfinite(value).all() for value in state.values())


def test_epsilon_grows_with_rounds_and_epochs_and_shrinks_with_noise_and_data():
    epsilon = lambda noise=1.0, n=100, rounds=3, epochs=1, **kw: dp_sgd(
        noise=noise, **kw
    ).promise.epsilon(LocalTraining(0.1, 8, epochs=epochs), n, rounds)
    assert epsilon() < epsilon(rounds=4)
    assert epsilon() < epsilon(epochs=2)
    assert epsilon(noise=2.0) < epsilon()
    assert epsilon(n=1000) < epsilon()
    assert epsilon(sampling="shuffle", rounds=4) == gaussian_epsilon(2.0, 1e-5)
    assert epsilon(sampling="shuffle", rounds=3, epochs=3) == gaussian_epsilon(3.0, 1e-5)
    assert epsilon() < epsilon(sampling="shuffle")
    gradient = LocalTraining(0.1, 8, upload="gradient")
    one = dp_sgd().promise.epsilon(gradient, 100, 5)
    assert one == subsampled_epsilon(1.0, 0.08, 5, 1e-5)


def test_without_noise_nothing_is_promised():
    assert not dp_sgd(noise=0.0).promise.formal
    assert chain(dp_sgd(), clip()).promise.relation == Relation.ADD_OR_REMOVE_EXAMPLE


def test_a_spent_budget_ends_a_clients_part():
    defense = chain(clip(), dp_sgd(max_epsilon=6.0))
    epsilon = dp_sgd().promise.epsilon
    state, rounds = defense.init({}), 0
    with pytest.raises(ValueError, match="privacy budget spent: ε must be at most 6, got"):  # noqa: PT012
        for _ in range(100):
            state = defense.spend(state, LOCAL, 100)
            rounds += 1
    assert epsilon(LOCAL, 100, rounds) <= 6 < epsilon(LOCAL, 100, rounds + 1)
    assert rounds > 1


def test_in_a_run_clients_stop_when_their_budget_is_spent(tmp_path):
    budget = dp_sgd().promise.epsilon(LOCAL, 180, 2)
    config = small_config(
        federation={"rounds": 4, "clients": 2},
        data={"limit": 400, "partition": "iid"}, attack=[], local={"batch_size": 8},
        defense=[{"name": "dp-sgd", "max_epsilon": budget}],
    )  # fmt: skip
    with pytest.raises(RunStopped, match="privacy budget spent: .* with round 3 of this client"):
        api.run(config, tmp_path / "run")
    rows = api.Run(tmp_path / "run").metrics().to_pylist()
    spent = [row["value"] for row in rows if row["metric"] == "epsilon"]
    assert max(spent) == budget
    assert len(spent) == 2 * 2


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"clip": 0.0}, "clip: must be finite and > 0, got 0.0"),
        ({"noise": -1.0}, "noise: must be finite and ≥ 0, got -1.0"),
        ({"noise": math.nan}, "noise: must be finite and ≥ 0, got nan"),
        ({"delta": 0.0}, "delta: must be above 0 and below 1, got 0.0"),
        ({"max_epsilon": 0.0}, "max_epsilon: must be > 0, got 0.0"),
        ({"microbatch": 0}, "microbatch: must be at least 1, got 0"),
    ],
)
def test_ranges(options, rule):
    with pytest.raises(ValueError, match=rule):
        dp_sgd(**options)


@pytest.mark.parametrize(
    ("model", "local", "delta", "rule"),
    [
        (bilinear(3), LocalTraining(0.1, 60), 1e-5,
         "at most the smallest client's 50 examples, got 60"),
        (bilinear(3), LOCAL, 0.02, r"must be below 1/n = 0.01 .* n = 100, got 0.02; use 0.001"),
    ],
)  # fmt: skip
def test_settings_in_which_it_would_not_hold_are_refused(model, local, delta, rule):
    with pytest.raises(ValueError, match=rule):
        chain(dp_sgd(delta=delta)).check(model, local, [100, 50])
    chain(dp_sgd()).check(bilinear(3), LOCAL, [100, 50])
