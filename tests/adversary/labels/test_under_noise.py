import pytest
import torch
from torch import nn

from adversary.attacks.eb_gls import eb_gls, solve
from adversary.labels.draws import weighted_overlap_counts
from adversary.labels.under_noise import fit_all, same_when_evaluated
from adversary.workspace import workspace
from defenses.gaussian import gaussian
from defenses.quantise import quantise
from defenses.sign import sign
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from tests.adversary.label_cases import asr, client

COUNTS = torch.tensor([16, 8, 4, 2, 1, 1])
STEP = LocalTraining(lr=0.1, batch_size=32, upload="gradient")


def changed(view, *defenses, seed=0):
    """Return a view whose update went through defenses."""
    latest, delta = view.latest, view.latest.update.delta
    delta = {name: value for name, value in delta.items() if value.is_floating_point()}
    for place, defense in enumerate(defenses):
        delta, _ = defense.apply(delta, {}, generator(seed, "defense", place))
    return View([Observation(latest.sent, Update(1, "0", delta, 32), latest.local)])


def posed(seed=0, local=STEP, last=()):
    """Return a client's view of an MLP on blobs, and its adversary."""
    with global_stream(seed, "model"):
        model = nn.Sequential(
            nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), *last, nn.Linear(24, 6)
        )
    stream = generator(seed, "blobs")
    centres = 2 * torch.randn(6, 8, generator=stream)
    blobs = lambda y: centres[y] + 0.5 * torch.randn(len(y), 8, generator=stream)
    labels, of_each = torch.arange(6).repeat_interleave(COUNTS), torch.arange(6).repeat(40)
    view = client(model, blobs(labels), labels, local, seed=seed)
    return view, Auxiliary(model, 6, inputs=blobs(of_each), labels=of_each)


@pytest.mark.parametrize("last", [(), (quantise(bits=4),), (sign(),)], ids=["", "quantise", "sign"])
def test_all_layers_say_more_than_the_head(last):
    head, everything = 0.0, 0.0
    for seed in range(30):
        view, auxiliary = posed(seed)
        view = changed(view, gaussian(std=0.2), *last, seed=seed)
        work = workspace(view, auxiliary)
        fit = fit_all(view.latest, work)
        assert fit is not None
        if (of_head := weighted_overlap_counts(solve(view.latest, work)[1].evidence)) is None:
            continue  # little noise
        head += asr(of_head, COUNTS)
        everything += asr(eb_gls(view, auxiliary, generator(seed)), COUNTS)
    assert everything > head + 0.3


def test_several_steps_are_left_to_the_head():
    local = LocalTraining(lr=0.1, batch_size=8, upload="weights")
    view, auxiliary = posed(local=local)
    view = changed(view, gaussian(std=0.01))
    assert fit_all(view.latest, workspace(view, auxiliary)) is None


def test_so_are_models_that_differ_in_training():
    for layer, same in (
        (nn.Identity(), True),
        (nn.Dropout(0.5), False),
        (nn.BatchNorm1d(24), False),
    ):
        view, auxiliary = posed(last=(layer,))
        view = changed(view, gaussian(std=0.1))
        work = workspace(view, auxiliary)
        assert same_when_evaluated(work) == same
        assert (fit_all(view.latest, work) is not None) == same


def test_a_head_by_itself_is_read_by_itself():
    model = nn.Linear(8, 6)
    inputs, labels = torch.randn(32, 8, generator=generator(0, "x")), torch.arange(32) % 6
    view = changed(client(model, inputs, labels, STEP), gaussian(std=0.1))
    auxiliary = Auxiliary(model, 6, inputs=inputs, labels=labels)
    assert fit_all(view.latest, workspace(view, auxiliary)) is None


def test_counts_that_explain_an_update_badly_are_not_trusted():
    view, auxiliary = posed()
    work = workspace(view, auxiliary)
    noisy = changed(view, gaussian(std=0.1))
    assert fit_all(noisy.latest, work) is not None
    delta = {
        n: v + 30 * view.latest.update.delta[n].flip(0)
        for n, v in noisy.latest.update.delta.items()
    }
    other = Observation(view.latest.sent, Update(1, "0", delta, 32), STEP)
    assert fit_all(other, work) is None
