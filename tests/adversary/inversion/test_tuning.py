from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.inversion import tuning
from adversary.inversion.problems import problem_of
from adversary.inversion.settings import Settings
from adversary.inversion.tuning import PRIORS, STEPS, VICTIMS, choose, tuned
from adversary.workspace import workspace
from fedsim.core.errors import Remark
from fedsim.core.memory import Memory
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary
from tests.builders import observe, plain_gradient

CLASSES, SHAPE = 3, (1, 8, 8)
SHORT = Settings(iterations=30, restarts=1, falls=True)
with global_stream(0, "tuning"):
    MODEL = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(256, CLASSES)
    )
PICTURES = nn.functional.interpolate(
    torch.rand(12, 1, 3, 3, generator=generator(0, "pictures")), size=8, mode="bilinear"
)
BLIND = Auxiliary(MODEL, CLASSES, input_shape=SHAPE)
AUXILIARY = replace(BLIND, inputs=PICTURES[2:], labels=torch.arange(10) % CLASSES)


def client(place=0, memory=None):
    gradient = plain_gradient(MODEL, PICTURES[place : place + 1], torch.tensor([1]))
    view = observe(gradient, 1, sent=MODEL)
    return view if memory is None else replace(view, memory=memory)


def settings_of(view, auxiliary, **given):
    problem = problem_of(view.latest, auxiliary)
    return tuned(**given)(problem, workspace(view, auxiliary), SHORT)[1]


def test_settings_that_are_given_stay_and_cost_no_rehearsal():
    given = {"optimiser": "signed", "lr": 0.5, "tv": 0.2, "start": "uniform"}
    assert settings_of(client(), AUXILIARY, **given) == replace(SHORT, **given)
    with pytest.warns(Remark, match="chosen on 2 rehearsed clients"):
        chosen = settings_of(client(), AUXILIARY, lr=0.5)
    assert chosen.lr == 0.5


@pytest.mark.parametrize(
    ("lacks", "examples"),
    [("inputs", "synthetic pictures"), ("labels", "auxiliary pictures and drawn labels")],
)
def test_without_labelled_pictures_others_stand_in(lacks, examples):
    known = replace(AUXILIARY, **{lacks: None}, input_shape=SHAPE)
    with pytest.warns(Remark, match=f"rehearsed clients with {examples} "):
        chosen = settings_of(client(), known, tv=0.01, start="grey")
    width = 1.0 if lacks == "inputs" else float(PICTURES[2:].max() - PICTURES[2:].min())
    rates = [(kind, pytest.approx(rate * width)) for kind, rate in STEPS]
    assert any((chosen.optimiser, chosen.lr) == it for it in rates)


def test_of_features_without_labelled_examples_the_first_values_are_taken():
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, CLASSES))
    known = Auxiliary(model, CLASSES, input_shape=(6,))
    gradient = plain_gradient(model, torch.rand(1, 6), torch.tensor([2]))
    chosen = settings_of(observe(gradient, 1, sent=model), known)
    assert (chosen.optimiser, chosen.tv, chosen.start) == (STEPS[0][0], 0.0, "grey")
    assert chosen.lr == pytest.approx(STEPS[0][1] * 6)  # features are taken from −3 to 3


def test_what_came_nearest_is_chosen_and_a_choice_serves_all_clients_of_a_model(monkeypatch):
    rehearsed = []
    plain = tuning.rehearsed_victims
    monkeypatch.setattr(
        tuning, "rehearsed_victims", lambda *args: rehearsed.append(args[2]) or plain(*args)
    )
    with Memory() as memory:
        views = [client(place, memory) for place in range(2)]
        views[1] = replace(views[1], observations=(replace(
            views[1].latest, sent=views[0].latest.sent),))  # fmt: skip
        with pytest.warns(Remark):
            first, second = (settings_of(view, AUXILIARY) for view in views)
        assert first == second
        assert rehearsed == [VICTIMS]
        choice = choose(workspace(views[0], AUXILIARY), 1, SHORT, (None, None, None, None))
    scores = dict(choice.tried)
    assert len(scores) == len(STEPS) + 2 + 1
    assert scores[choice.settings] == max(scores.values())
    assert choice.iterations == SHORT.iterations
    careful = choose(workspace(views[0], AUXILIARY), 1, SHORT, (None, None, None, None), 99.0)
    assert (careful.settings.optimiser, careful.settings.tv) == (STEPS[0][0], PRIORS[0])
    assert dict(careful.tried)[careful.settings] == scores[careful.settings]


def test_features_have_no_total_variation():
    with global_stream(0, "table"):
        model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, CLASSES))
    x = torch.randn(9, 6, generator=generator(0))
    known = Auxiliary(model, CLASSES, inputs=x[1:], labels=torch.arange(8) % CLASSES)
    view = observe(plain_gradient(model, x[:1], torch.tensor([2])), 1, sent=model)
    options = {"iterations": 150, "restarts": 1, "rehearsals": 0}
    with pytest.warns(Remark, match="tv 0 from"):
        guess = inverting_gradients(view, known, generator(0), **options)
    assert float((guess - x[:1]).square().mean()) < 0.5 * float(x[:1].square().mean())
