"""The terms of GradViT, on a vision transformer of one block."""

import pytest
import torch
from torch import nn

from adversary.attacks import ATTACKS
from adversary.attacks.grad_vit import _patched, grad_vit
from adversary.inversion.losses import Losses
from adversary.inversion.priors import pixels
from adversary.inversion.problems import problem_of
from adversary.inversion.settings import Settings
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from fedsim.models.vit import vit
from tests.adversary.attacks.test_april import made
from tests.adversary.inversion.inversion_cases import images
from tests.builders import observe, plain_gradient

SHAPE, CLASSES = (1, 6, 4), 3  # six patches of 2×2
X, LABEL = images(1, *SHAPE).float(), torch.tensor([1])


def case():
    model = made(lambda: vit(SHAPE, CLASSES, patch=2, width=16, heads=2, layers=1))
    view = observe(plain_gradient(model, X, LABEL), 1, sent=model)
    return view, Auxiliary(model, CLASSES, input_shape=SHAPE)


def test_the_position_embeddings_cosine_is_added():
    view, auxiliary = case()
    work, settings = workspace(view, auxiliary), Settings(marked=2.0)
    problem, _ = _patched(problem_of(view.latest, auxiliary), work, settings)
    form = pixels(problem.shape, torch.float32, box=None, start="grey")
    guess = torch.rand(1, *problem.shape, generator=generator(0, "guess"))
    targets = nn.functional.one_hot(LABEL, CLASSES).float()[None]
    with_it, without = (
        Losses(problem, Settings(marked=weight), form, targets, 0.0)
        .distance(guess, targets)
        .detach()
        for weight in (2.0, 0.0)
    )
    here, there = (
        plain_gradient(auxiliary.model, x, LABEL)["positions"].flatten() for x in (guess[0], X)
    )
    cosine = nn.functional.cosine_similarity(here, there, dim=0)
    assert float(with_it - without) == pytest.approx(2 * float(1 - cosine), abs=1e-5)


def test_a_model_without_patches_is_refused():
    model = made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(24, CLASSES)))
    view = observe(plain_gradient(model, X, LABEL), 1, sent=model)
    with pytest.raises(NotApplicable, match="patches: a trained position embedding must be added"):
        grad_vit(view, Auxiliary(model, CLASSES, input_shape=SHAPE), generator(0), iterations=2)


def test_a_plan_says_which_models_are_refused():
    _, auxiliary = case()
    plan, local = ATTACKS["grad-vit"].plan, LocalTraining(lr=0.1, batch_size=4, epochs=3)
    assert plan(auxiliary, local, 4) == ""
    dense = nn.Sequential(nn.Flatten(), nn.Linear(24, CLASSES))
    sentence = plan(Auxiliary(dense, CLASSES, input_shape=SHAPE), local, 4)
    assert sentence.startswith("will refuse every update: patches: a trained position embedding")
