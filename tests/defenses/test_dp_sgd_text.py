"""DP-SGD on texts: a text's gradient is one record's, and noise on every row hides its tokens."""

import statistics

import pytest
import torch
from torch.nn import functional

from adversary.games.scores import auroc
from adversary.text.rows import moved
from defenses.dp_sgd import clipped_sum, noised_mean
from fedsim import models
from fedsim.config import Model
from fedsim.core.form import Form
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining

SIZE, LENGTH = 300, 8
FORM = Form((LENGTH,), SIZE, torch.int64, SIZE, per_token=True)
LOCAL = LocalTraining(lr=0.1, batch_size=4, upload="gradient")
TABLE = "tokens.weight"


def setting():
    model = models.build(Model(name="gpt", width=8, heads=2, layers=1), FORM, seed=0)
    inputs, targets = models.batch(FORM, 4)
    return model, dict(model.named_parameters()), inputs, targets


def noised(seed, noise=4.0):
    """Return the token table's part of an update."""
    model, trained, inputs, targets = setting()
    slopes = noised_mean(
        model,
        trained,
        inputs,
        targets,
        LOCAL,
        generator(seed, "coins"),
        clip=1.0,
        noise=noise,
        microbatch=4,
    )
    return dict(zip(trained, slopes, strict=True))[TABLE]


def used(inputs):
    present = torch.zeros(SIZE, dtype=torch.bool)
    present[inputs[inputs > 0]] = True
    return present


@pytest.mark.twin
@pytest.mark.parametrize("bound", [0.05, 1e9])
def test_a_text_is_clipped_as_the_mean_over_its_targets(bound):
    model, trained, inputs, targets = setting()
    total = clipped_sum(model, trained, inputs, targets, clip=bound, microbatch=3)
    expected = {name: torch.zeros_like(value) for name, value in trained.items()}
    for x, y in zip(inputs, targets, strict=True):
        loss = functional.cross_entropy(model(x[None]), y[None])
        slopes = torch.autograd.grad(loss, list(trained.values()))
        size = torch.cat([slope.flatten() for slope in slopes]).norm()
        for name, slope in zip(trained, slopes, strict=True):
            expected[name] += slope * min(1.0, bound / float(size))
    for name, value in expected.items():
        assert torch.allclose(total[name], value, atol=1e-6), name


def test_with_noise_on_all_rows_the_set_of_tokens_is_at_chance():
    _, trained, inputs, _ = setting()
    sent = trained[TABLE].detach()
    values = [auroc(moved(noised(seed), sent).sizes, used(inputs)).value for seed in range(30)]
    spread = statistics.stdev(values) / len(values) ** 0.5
    assert abs(statistics.fmean(values) - 0.5) < 5 * spread


def test_noise_on_touched_rows_alone_would_name_every_token():
    _, trained, inputs, _ = setting()
    present = used(inputs)
    planted = noised(0) * present[:, None]
    assert torch.equal(moved(planted, trained[TABLE].detach()).rows, present)
