import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks.see_through_gradients import see_through_gradients
from adversary.inversion.batch_norms import statistics_of, unlikeness
from adversary.inversion.local_steps import one_hot, simulated
from adversary.inversion.problems import problem_of
from adversary.inversion.rows import Rows
from clients.train import train
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate, LocalTraining
from tests.builders import observe, plain_gradient

CLASSES, SHAPE = 3, (1, 8, 8)
LABELS = torch.tensor([0, 2])


def normed(momentum=0.1):
    with global_stream(0, "batch norms"):
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6, momentum=momentum), nn.Tanh(),
            nn.Conv2d(6, 6, 3, stride=2), nn.BatchNorm2d(6, momentum=momentum), nn.Tanh(),
            nn.Flatten(), nn.Linear(54, CLASSES),
        ).double()  # fmt: skip


def pictures(count=2):
    coarse = torch.rand(count, 1, 3, 3, generator=generator(0, "normed")).double()
    return nn.functional.interpolate(coarse, size=8, mode="bilinear")


def uploaded(model, x, **protocol):
    local = LocalTraining(**{"lr": 0.1, "batch_size": 2, "epochs": 1} | protocol)
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    state, _ = train(copy.deepcopy(model), sent, x, LABELS, local, generator=generator(0))
    return observe(subtract(state, sent), len(x), sent=model, local=local)


def inputs_of(model, x):
    """Return the mean and the variance of what batch norms are given, by hooks."""
    taken, model = {}, copy.deepcopy(model).train().requires_grad_(requires_grad=False)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            hook = lambda _, given, name=name: taken.update({name: given[0].detach()})
            module.register_forward_pre_hook(hook)
    model(x)
    return {n: (v.mean(dim=(0, 2, 3)), v.var(dim=(0, 2, 3))) for n, v in taken.items()}


@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_uploaded_buffers_have_the_statistics_of_the_batch(momentum):
    model, x = normed(momentum), pictures()
    model.train()(pictures(4))  # statistics of before
    known = statistics_of(model, uploaded(model, x).latest)
    for name, (mean, variance) in inputs_of(model, x).items():
        torch.testing.assert_close(known[name][0], mean)
        torch.testing.assert_close(known[name][1], variance)


def test_of_several_steps_it_is_about_the_mean_of_theirs():
    model, x = normed(), pictures()
    known = statistics_of(model, uploaded(model, x, epochs=3, lr=1e-4).latest)
    for name, (mean, variance) in inputs_of(model, x).items():
        torch.testing.assert_close(known[name][0], mean, rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(known[name][1], variance, rtol=1e-2, atol=1e-3)


def test_of_a_gradient_it_is_what_was_sent_once_there_is_any():
    model, x = normed(), pictures()
    sent = lambda: observe(plain_gradient(copy.deepcopy(model), x, LABELS), 2, sent=model).latest
    assert statistics_of(model, sent()) is None
    model.train()(pictures(4))
    known = statistics_of(model, sent())
    assert set(known) == {"1", "4"}
    torch.testing.assert_close(known["1"][0], model[1].running_mean)


def test_buffers_that_stay_as_sent_are_the_running_ones():
    model, x = normed(), pictures()
    model.train()(pictures(4))
    view = uploaded(model, x)
    still = {n: v * 0 if "running" in n else v for n, v in view.latest.update.delta.items()}
    latest = replace(view.latest, update=replace(view.latest.update, delta=still))
    torch.testing.assert_close(statistics_of(model, latest)["4"][1], model[4].running_var)


def test_rows_give_the_statistics_of_each_and_the_clients_own_inputs_are_alike():
    model, x = normed(), pictures(6)
    rows = Rows(model, model.state_dict(), [name for name, _ in model.named_parameters()])
    targets = one_hot(LABELS, CLASSES, torch.float64).expand(3, 2, CLASSES)
    local, statistics = LocalTraining(lr=0.1, batch_size=2, epochs=1), {}
    simulated(rows, x.view(3, 2, *SHAPE), targets, local, statistics=statistics)
    for row, batch in enumerate(x.split(2)):
        for name, (mean, variance) in inputs_of(model, batch).items():
            torch.testing.assert_close(statistics[name][0][row], mean)
            torch.testing.assert_close(statistics[name][1][row], variance)
    apart = unlikeness(statistics, inputs_of(model, x[2:4])).detach()
    assert float(apart[1]) < 1e-12
    assert float(apart[[0, 2]].min()) > 1e-4


def test_statistics_of_smaller_batches_than_the_data_are_not_used():
    model = normed()
    known = Auxiliary(model, CLASSES, input_shape=SHAPE)
    assert problem_of(uploaded(model, pictures()).latest, known).statistics is not None
    smaller = uploaded(model, pictures(), batch_size=1)
    assert problem_of(smaller.latest, known).statistics is None


def test_statistics_bring_guesses_nearer():
    model, x = normed().float(), pictures().float()
    view, known = uploaded(model, x), Auxiliary(model, CLASSES, input_shape=SHAPE)

    def error(norms):
        options = {"restarts": 1, "iterations": 40, "norms": norms}
        options |= {"hypotheses": 1, "rehearsals": 0}
        guess = see_through_gradients(view, known, generator(0), **options)
        guess = guess.values if isinstance(guess, Estimate) else guess
        return min(float((part - x).square().mean()) for part in (guess, guess.flip(0)))

    assert error(10.0) < error(0.0)
