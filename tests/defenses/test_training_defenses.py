"""Defenses inside training that promise nothing: mixup, the bottleneck, Soteria."""

import math

import pytest
import torch
from torch import nn

from defenses import Marked, chain, gaussian, mixup, perturb, soteria, vib
from defenses.mixup import mixing_share
from defenses.perturb import moved
from defenses.soteria import exposing
from defenses.surrogate import Surrogate, ridge
from defenses.vib import information
from fedsim import api
from fedsim.config import read
from fedsim.core.errors import ConfigError
from fedsim.core.examples import example_gradients
from fedsim.core.rng import generator, global_stream
from fedsim.core.sgd import mean_gradient
from fedsim.core.types import LocalTraining
from fedsim.models import Bottleneck
from tests.builders import bilinear, plain_gradient, small_config

pytestmark = pytest.mark.usefixtures("undrawn")

LOCAL = LocalTraining(lr=0.1, batch_size=8)
INPUTS = torch.randn(8, 4, generator=generator(0, "inside"))
LABELS = torch.arange(8) % 3


def parameters(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def gradients(defense, model, seed=0, local=LOCAL):
    found = defense.gradient(model, parameters(model), INPUTS, LABELS, local, generator(seed))
    return dict(zip(parameters(model), found, strict=True))


def test_mixup_is_the_gradient_of_mixed_examples_with_mixed_labels():
    model, stream = bilinear(3), generator(5)
    found = gradients(mixup(alpha=1.0), model, seed=5)
    share = mixing_share(1.0, stream)
    order = torch.randperm(8, generator=stream)
    targets = share * torch.eye(3)[LABELS] + (1 - share) * torch.eye(3)[LABELS[order]]
    mixed = share * INPUTS + (1 - share) * INPUTS[order]
    loss = nn.functional.cross_entropy(model(mixed), targets)
    expected = torch.autograd.grad(loss, list(parameters(model).values()))
    for value, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(value, other)


def test_mixups_shares_are_beta():
    draws = torch.tensor([mixing_share(0.4, generator(i, "beta")) for i in range(4000)])
    variance = 1 / (4 * (2 * 0.4 + 1))  # of Beta(α, α)
    assert abs(float(draws.mean()) - 0.5) < 4 * math.sqrt(variance / 4000)
    assert float(draws.var()) == pytest.approx(variance, rel=0.1)


def deep(size=3):
    with global_stream(0, "deep"):
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), Bottleneck(6, size), nn.Linear(size, 3))


def test_information_is_torchs_divergence():
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(information(mean, log_variance), expected.sum(dim=1).mean())


def test_a_bottleneck_draws_while_training_only():
    model = deep()
    assert torch.equal(model.eval()(INPUTS), model.eval()(INPUTS))
    assert not torch.equal(model.train()(INPUTS), model.train()(INPUTS))
    with torch.no_grad():
        model[2].log_variance.weight.zero_()
        model[2].log_variance.bias.fill_(2 * math.log(0.5))
        spread = torch.stack([model[2](torch.ones(1, 6)) for _ in range(4000)]).std(dim=0)
    torch.testing.assert_close(spread, torch.full((1, 3), 0.5), rtol=0.06, atol=0.0)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_price_of_information_is_added(beta):
    model = deep()
    with global_stream(1, "draw"):
        found = gradients(vib(beta=beta), model)
    with global_stream(1, "draw"):
        hidden = model[1](model[0](INPUTS))
        loss = nn.functional.cross_entropy(model[3](model[2](hidden)), LABELS)
        codes = model[2].mean(hidden), model[2].log_variance(hidden)
        loss = loss + beta * information(*codes)
    expected = torch.autograd.grad(loss, list(parameters(model).values()))
    for value, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(value, other)
    assert not model[2]._forward_hooks


def test_a_model_without_a_bottleneck_is_refused_before_round_1(tmp_path):
    config = read(None, ["defense=vib", "data.limit=200"])
    with pytest.raises(ConfigError, match="must have a model with a bottleneck, got none"):
        api.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with_it = small_config(
        model={"name": "mlp", "bottleneck": 8}, defense="vib", attack="llg,llg-plus",
        federation={"rounds": 1},
    )  # fmt: skip
    rows = api.run(with_it, tmp_path / "run").ledger().to_pylist()
    assert {(row["attack"], row["adaptive"]) for row in rows} == {
        (name, adaptive) for name in ("llg", "llg-plus") for adaptive in (False, True)
    }
    assert all(row["value"] is not None for row in rows)


def test_soteria_drops_what_a_loop_finds():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x = INPUTS.clone().requires_grad_()
    r = model[1](model[0](x))
    ratios = torch.zeros(6)
    for n in range(8):
        for i in range(6):
            one = INPUTS[n].clone().requires_grad_()
            value = model[1](model[0](one))[i]
            slope = torch.autograd.grad(value, one)[0].norm()
            ratios[i] += value.detach().abs() / slope / 8
    for rate, count in ((0.0, 0), (0.5, 3), (1.0, 6)):
        dropped = exposing(r, x, rate)
        assert int(dropped.sum()) == count
        assert set(torch.nonzero(dropped)[:, 0].tolist()) == set(
            ratios.argsort(descending=True)[:count].tolist()
        )
    found = gradients(soteria(layer="2", rate=0.5), model)
    plain = plain_gradient(model, INPUTS, LABELS)
    dropped = exposing(r, x, 0.5)
    assert not found["2.weight"][:, dropped].any()
    torch.testing.assert_close(found["2.weight"][:, ~dropped], plain["2.weight"][:, ~dropped])
    for name in ("0.weight", "0.bias", "2.bias"):
        torch.testing.assert_close(found[name], plain[name])


def test_soteria_needs_a_linear_layer():
    with pytest.raises(ValueError, match="must be a linear layer, got 'hed'"):
        soteria(layer="hed").check(deep(), LOCAL, [9])
    soteria(layer="3").check(deep(), LOCAL, [9])


def test_a_perturbed_gradient_is_moved_by_its_strength_towards_an_even_guess():
    model, guesses = bilinear(3), []
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2])
    for strength in (0.0, 0.2):
        hook = perturb(strength=strength, shadows=200).gradient
        found = hook(model, parameters(model), INPUTS, labels, LOCAL, generator(0))
        plain = plain_gradient(model, INPUTS, labels).values()
        away = torch.cat([(a - b).flatten() for a, b in zip(found, plain, strict=True)])
        length = torch.cat([b.flatten() for b in plain]).norm()
        assert float(away.norm() / length) == pytest.approx(strength, abs=1e-5)
        each = example_gradients(model, parameters(model), INPUTS, labels)
        rows = torch.cat([g.flatten(1) for g in each.values()], dim=1)
        update = torch.cat([g.flatten() for g in found])
        # The least-squares mixture that explains the update says the label shares.
        mixture = torch.linalg.lstsq(rows.T.double(), update.double().unsqueeze(1)).solution[:, 0]
        guesses.append(float(mixture[:6].sum() / mixture.sum()))
    assert guesses[0] == pytest.approx(0.75, abs=1e-3)
    assert guesses[1] < 0.74


@pytest.mark.parametrize("size", [1, 5])
def test_a_batch_of_one_label_is_moved_towards_another_label(size):
    model, local, labels = bilinear(3), LOCAL, torch.ones(size, dtype=torch.int64)
    inputs = INPUTS[:size]
    hook = perturb(strength=0.4, shadows=200).gradient
    update = hook(model, parameters(model), inputs, labels, local, generator(0))
    plain = plain_gradient(model, inputs, labels).values()
    away = torch.cat([(a - b).flatten() for a, b in zip(update, plain, strict=True)])
    length = torch.cat([b.flatten() for b in plain]).norm()
    assert float(away.norm() / length) == pytest.approx(0.4, abs=1e-5)
    other = [plain_gradient(model, inputs, torch.full_like(labels, c)).values() for c in (0, 2)]
    towards = [
        sum(float(((a - b) * (o - b)).sum()) for a, b, o in zip(update, plain, to, strict=True))
        for to in other
    ]
    assert max(towards) > 0


def test_gradients_that_are_all_alike_are_not_moved():
    alike = torch.ones(2, 2).double(), torch.eye(2).double()
    weights = moved(*alike, 0.5, 8, generator(0), size=2)
    assert weights.tolist() == [0.5, 0.5]


def marked(count, *names):
    """Two kinds that differ in one number, all of one label."""
    stream = generator(0, "marked", *names)
    marks = torch.randint(2, (count,), generator=stream)
    inputs = torch.randn(count, 4, generator=stream)
    inputs[:, 0] += 2.0 * (2 * marks - 1)
    return Marked(inputs, torch.zeros(count, dtype=torch.int64), marks)


def one_at_a_time(hook, model, of):
    rows = [
        hook(model, parameters(model), x[None], y[None], LOCAL, generator(0))
        for x, y in zip(of.inputs, of.labels, strict=True)
    ]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def test_a_surrogate_of_the_secret_is_misled_about_others_records():
    model, others = bilinear(3), marked(60, "others")
    records = marked(200, "defender")
    guesses = {}
    for strength in (0.0, 0.5):
        defense = perturb(strength=strength).against(records)
        rows = one_at_a_time(defense.gradient, model, others)
        plain = one_at_a_time(mean_gradient, model, others)
        away = (rows - plain).norm(dim=1) / plain.norm(dim=1)
        torch.testing.assert_close(away, torch.full_like(away, strength), atol=1e-5, rtol=0)
        fitted = Surrogate(records, 256).at(model, parameters(model), 0.0)
        guess = (rows.double() - fitted.mean) @ fitted.slopes[:, 1]
        guesses[strength] = float(((guess > 0) == (others.marks == 1)).double().mean())
    assert guesses[0.0] > 0.75
    assert guesses[0.5] < guesses[0.0] - 0.2


def test_the_surrogate_follows_the_weights_and_the_records():
    models = [bilinear(3), bilinear(3)]
    with torch.no_grad():
        for value in models[1].parameters():
            value.mul_(1.5)
    surrogate = Surrogate(marked(50, "defender"), 256)
    fits = [surrogate.at(model, parameters(model), 0.0) for model in (*models, models[0])]
    torch.testing.assert_close(fits[0].slopes, fits[2].slopes)
    assert not torch.allclose(fits[0].slopes, fits[1].slopes)
    other = Surrogate(marked(50, "another"), 256).at(models[0], parameters(models[0]), 0.0)
    assert not torch.allclose(fits[0].slopes, other.slopes)


def test_ridge_is_least_squares_where_nothing_is_noise():
    rows = torch.randn(50, 4, generator=generator(0, "rows")).double()
    truth = torch.randn(4, 2, generator=generator(0, "truth")).double()
    fit = ridge(rows, rows @ truth + 3.0)
    torch.testing.assert_close(fit.slopes, truth, rtol=0.01, atol=0.01)


def test_a_chain_is_against_the_secret_too():
    linked = chain(perturb(strength=0.5), gaussian(std=0.1))
    equipped = linked.against(marked(50, "defender"))
    assert equipped.name == linked.name
    assert equipped.gradient is not linked.gradient
    assert chain(gaussian(std=0.1)).against is None


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: mixup(alpha=0.0), "alpha: must be finite and > 0, got 0.0"),
        (lambda: mixup(alpha=math.inf), "alpha: must be finite and > 0, got inf"),
        (lambda: vib(beta=-1.0), "beta: must be finite and ≥ 0, got -1.0"),
        (lambda: perturb(strength=-0.1), "strength: must be finite and ≥ 0, got -0.1"),
        (lambda: perturb(shadows=1), "shadows: must be at least 2, got 1"),
        (lambda: perturb(records=1), "records: must be at least 2, got 1"),
        (lambda: soteria(rate=1.1), "rate: must be at least 0 and at most 1, got 1.1"),
    ],
)
def test_ranges(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
