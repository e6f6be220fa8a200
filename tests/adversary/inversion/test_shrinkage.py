from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.inversion import shrinkage
from adversary.inversion.settings import Settings
from adversary.inversion.shrinkage import Shrinkage, rehearsed
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.memory import Memory
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate
from tests.builders import observe, plain_gradient

CLASSES, SHAPE = 3, (1, 8, 8)
FIRST = {"optimiser": "adam", "lr": 0.1, "tv": 1e-3, "start": "uniform", "restarts": 1}
with global_stream(0, "shrinkage"):
    MODEL = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(256, CLASSES)
    )
PICTURES = nn.functional.interpolate(
    torch.rand(40, 1, 3, 3, generator=generator(0, "pictures")), size=8, mode="bilinear"
)
AUXILIARY = Auxiliary(
    MODEL, CLASSES, inputs=PICTURES[8:], labels=torch.arange(32) % CLASSES, input_shape=SHAPE
)


def client(place=0, size=1):
    labels = torch.arange(size) % CLASSES
    gradient = plain_gradient(MODEL, PICTURES[place : place + size], labels)
    return observe(gradient, size, sent=MODEL)


def learned(monkeypatch, answers, clients=8):
    """Return what is learned where matching gives `answers` of rehearsed examples."""
    victims = shrinkage.rehearsed_victims

    def remembered(*args, **options):
        results.extend(victims(*args, **options))
        return results

    def matched(problem, settings, labels, stream, *, box):
        guesses = torch.stack([answers(x) for _, x, _ in results])
        return guesses, torch.ones(len(guesses))

    results = []
    monkeypatch.setattr(shrinkage, "rehearsed_victims", remembered)
    monkeypatch.setattr(shrinkage, "match", matched)
    settings = Settings(iterations=3)
    return rehearsed(workspace(client(), AUXILIARY), 1, settings, "plain", clients)


def test_right_answers_are_left_as_they_are(monkeypatch):
    what = learned(monkeypatch, lambda x: x)
    answer = what.of(PICTURES[:1], 1.0)
    assert torch.equal(answer.values, PICTURES[:1])
    assert float(answer.uncertainty.max()) < 1e-6
    assert what.sentence(1.0) == "not shrunk, by 8 rehearsed clients with auxiliary examples"


def test_noise_becomes_the_mean_and_the_uncertainty_is_that_of_the_mean(monkeypatch):
    stream = generator(0, "noise")
    what = learned(monkeypatch, lambda x: torch.rand(x.shape, generator=stream))
    noise = torch.rand(8, *SHAPE, generator=stream)
    mean = PICTURES[8:].mean(dim=0)
    shrunk = torch.cat([what.of(part[None], 1.0).values for part in noise])
    errors = [float((it - PICTURES[:8]).square().mean()) for it in (noise, shrunk, mean)]
    assert errors[1] < 1.2 * errors[2] < 0.8 * errors[0]
    unsure = what.of(noise[:1], 1.0).uncertainty
    assert float(unsure.square().mean()) == pytest.approx(errors[2], rel=0.5)


def test_an_answer_that_explains_its_upload_better_is_shrunk_less():
    one = torch.ones(SHAPE)
    what = Shrinkage(
        mean=0 * one, noise=1.0, loss=0.1, floor=0.01, share=1.0, variance=0.08 * one,
        clients=1, examples="auxiliary examples",
    )  # fmt: skip
    assert what.weight(0.1) == pytest.approx(0.5)
    assert what.weight(0.3) == pytest.approx(0.25)
    assert what.weight(1e-5) == what.weight(0.0) == 1.0
    assert what.sentence(0.1).startswith("shrunk towards the mean example with weight 0.5, by 1 ")
    answer = what.of(one[None], 0.1)
    assert torch.allclose(answer.values, 0.5 * one)
    assert torch.allclose(answer.uncertainty, 0.3 * one)
    assert torch.allclose(what.of(one[None], 1e3).values, 0 * one, atol=1e-3)


def test_answers_of_few_iterations_come_nearer_and_rehearsals_serve_all_clients(monkeypatch):
    calls, plain = [], shrinkage.match
    monkeypatch.setattr(
        shrinkage, "match", lambda *args, **options: calls.append(args) or plain(*args, **options)
    )
    errors, sent = {0: 0.0, 2: 0.0}, None
    with Memory() as memory:
        for place in range(4):
            view = client(place)
            sent = sent or view.latest.sent
            view = replace(view, observations=(replace(view.latest, sent=sent),), memory=memory)
            plainly = inverting_gradients(
                view, AUXILIARY, generator(0), iterations=2, rehearsals=0, **FIRST
            )
            with pytest.warns(Remark, match="shrunk towards the mean .* with weight 0"):
                shrunk = inverting_gradients(view, AUXILIARY, generator(0), iterations=2, **FIRST)
            assert isinstance(plainly, torch.Tensor)
            assert isinstance(shrunk, Estimate)
            for rehearsals, guess in ((0, plainly), (2, shrunk.values)):
                errors[rehearsals] += float((guess - PICTURES[place]).square().mean())
    assert len(calls) == 1
    assert errors[2] < 0.7 * errors[0]


@pytest.mark.parametrize("lacks", ["inputs", "labels"])
def test_other_examples_stand_in_for_a_batch(lacks):
    known = replace(AUXILIARY, **{lacks: None})
    with pytest.warns(Remark, match="by 2 rehearsed clients with "):
        answer = inverting_gradients(client(0, 2), known, generator(0), iterations=2, **FIRST)
    assert isinstance(answer, Estimate)
    assert answer.values.shape == answer.uncertainty.shape == (2, *SHAPE)


def test_features_are_shrunk_with_labelled_examples_alone():
    with global_stream(0, "table"):
        model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, CLASSES))
    gradient = plain_gradient(model, torch.zeros(1, 6), torch.tensor([2]))
    known = Auxiliary(model, CLASSES, input_shape=(6,))
    with pytest.warns(Remark, match="not shrunk: features are rehearsed with labelled auxiliary"):
        inverting_gradients(
            observe(gradient, 1, sent=model), known, generator(0), iterations=2, restarts=1
        )


def test_a_number_below_zero_is_refused():
    with pytest.raises(NotApplicable, match="rehearsals: must be at least 0, got -1"):
        inverting_gradients(client(), AUXILIARY, generator(0), rehearsals=-1)
