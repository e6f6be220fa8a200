"""Texts sampled from a model: what it knows by heart comes out, whatever the update is."""

import pytest
import torch

from adversary.attacks.sampled_texts import ATTACK
from adversary.grading.answers import attack_view
from adversary.grading.families import FAMILIES
from fedsim.core.rng import generator
from tests.adversary.text.small import sgd, trained
from tests.adversary.text.test_attacks import INPUTS, TARGETS, auxiliary_of, language, seen


def by_heart():
    """Return a model trained on one text alone, and what is observed of that text's client."""
    model = language()
    inputs, targets = INPUTS[:1], TARGETS[:1]
    delta = trained(model, inputs, targets, sgd, steps=300, batch=1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.add_(delta[name])
    return model, *seen(model, torch.arange(1))


def test_a_text_that_the_model_knows_by_heart_is_sampled():
    model, view, truth = by_heart()
    (answer,) = attack_view(view, [ATTACK], auxiliary_of(model), seed=0)
    family = FAMILIES["text"]
    value, blind = (family.grade(it, truth)["token_f1"] for it in (answer.guess, answer.blind))
    assert value > 0.8 > blind


def test_samples_do_not_depend_on_the_update():
    model = language()
    view, _ = seen(model, torch.arange(3))
    other, _ = seen(model, torch.arange(5, 8))
    first, second = (ATTACK.infer(it, auxiliary_of(model), generator(1)) for it in (view, other))
    assert len(first) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_temperature_that_is_not_above_zero_is_refused():
    model = language()
    view, _ = seen(model, torch.arange(1))
    with pytest.raises(ValueError, match="temperature: must be above 0, got 0"):
        ATTACK.infer(view, auxiliary_of(model), generator(1), temperature=0.0)
