"""Batches of vision transformers as people write them; what cannot be read is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from adversary.attacks import ATTACKS
from adversary.attacks.allotments import planned
from adversary.attacks.patch_spans import patch_spans
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from fedsim.models.vit import vit
from tests.adversary.attacks.test_april import Cut, made
from tests.adversary.inversion.inversion_cases import images, psnr
from tests.builders import observe

SHAPE, CLASSES = (3, 12, 8), 4  # six patches of 4×4
X, LABELS = images(2, *SHAPE).float(), torch.tensor([1, 2])


def small(**options):
    sizes = {"width": 96, "heads": 2, "layers": 2, **options}
    return made(lambda: vit(SHAPE, CLASSES, **sizes))


def answer(model, x=X, labels=LABELS, **options):
    given = {"restarts": 1, "iterations": 150, **options}
    local = given.pop("local", LocalTraining(0.1, len(x), upload="gradient"))
    frozen = given.pop("frozen", ())
    weights = dict(model.named_parameters())
    loss = functional.cross_entropy(model(x), labels)
    slopes = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
    gradient = dict(zip(weights, slopes, strict=True))
    for name in frozen:
        model.get_parameter(name).requires_grad_(requires_grad=False)
        del gradient[name]
    view = observe(gradient, len(labels), sent=model, local=local)
    auxiliary = Auxiliary(model, CLASSES, input_shape=tuple(x.shape[1:]))
    return patch_spans(view, auxiliary, generator(0), **given)


def nearest(guesses, x):
    return [max(psnr(guess, true) for guess in guesses) for true in x.double()]


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_two_pictures_come_back_whole_without_labels(first):
    with pytest.warns(Remark, match="2 of 2 pictures lie in the spans of"):
        guesses = answer(small(first=first), restarts=2)
    assert min(nearest(guesses, X)) > 40


def test_frozen_positions_and_patches_do_not_matter():
    frozen = ("positions", "patches.weight", "patches.bias")
    with pytest.warns(Remark, match="1 of 1 pictures"):
        guesses = answer(small(), X[:1], LABELS[:1], frozen=frozen)
    assert nearest(guesses, X[:1])[0] > 40


@pytest.mark.parametrize(
    ("make", "options", "rule"),
    [
        (lambda: small(width=12), {}, "must leave tokens of all examples within 12, .* got 2 × 7"),
        (lambda: Cut("conv", "none"), {}, "the model must tell places of patches apart"),
        (lambda: Cut("overlap"), {}, "the patches of conv = Conv2d must not overlap"),
        (small, {"local": LocalTraining(0.1, 2, 3)}, "must be one step for this attack, got 3"),
    ],
)
def test_what_it_cannot_read_it_refuses_in_one_sentence(make, options, rule):
    with pytest.raises(NotApplicable, match=rule) as refused:
        answer(made(make), **options)
    assert "\n" not in str(refused.value)


def test_a_head_of_zeros_gives_nothing_away():
    model = small()
    torch.nn.init.zeros_(model.head.weight)
    with pytest.raises(ValueError, match="directions of tokens must exceed the rounding"):
        answer(model)


def test_blends_that_lie_in_the_spans_do_not_pass_for_the_upload():
    model = made(lambda: Cut("linear", "rows", "maps"))  # 16 features: only patches are read
    with pytest.warns(Remark, match="in the spans of linear; the upload simulated .* differs by"):
        answer(model, iterations=40)


@pytest.mark.parametrize(("width", "chosen"), [(96, True), (12, False)])
def test_auto_reconstruct_takes_it_where_spans_have_room(width, chosen):
    model = small(width=width)
    sentence = planned(
        Auxiliary(model, CLASSES, input_shape=SHAPE), LocalTraining(0.1, 2, upload="gradient"), 2
    )
    assert ("patch-spans (2 × 7 tokens do not fill the spans of" in sentence) == chosen


def test_a_plan_says_which_updates_are_refused():
    plan, local = ATTACKS["patch-spans"].plan, LocalTraining(0.1, 2, upload="gradient")
    model = Auxiliary(small(), CLASSES, input_shape=SHAPE)
    assert plan(model, local, 2) == ""
    assert "must leave tokens" in plan(model, local, 40)
    assert "must be one step, got 3" in plan(model, LocalTraining(0.1, 2, epochs=3), 2)
    dense = Auxiliary(
        nn.Sequential(nn.Flatten(), nn.Linear(288, CLASSES)), CLASSES, input_shape=SHAPE
    )
    assert "must take a picture in 2 or more, got 1" in plan(dense, local, 2)
