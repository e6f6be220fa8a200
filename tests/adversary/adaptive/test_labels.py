from dataclasses import replace

import pytest
import torch

from adversary.adaptive.labels import TWINS, adaptive, chosen, corrections, infer
from adversary.attack import Attack
from adversary.attacks import ATTACKS
from adversary.attacks.eb_gls import eb_gls
from adversary.attacks.llg import llg
from adversary.attacks.rlu import rlu
from adversary.grading import answers, selection
from adversary.workspace import workspace
from defenses import Defense, chain, clip, gaussian
from fedsim.config import Part
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, View
from tests.adversary.label_cases import asr, unbalanced
from tests.builders import random_attack

LOCAL = LocalTraining(lr=0.1, batch_size=40, upload="gradient")


def defended(defense, *, seed=0, local=LOCAL):
    """Return a view of a defended client, an adversary that knows the defense, true counts."""
    view, auxiliary, counts = unbalanced(local, seed=seed)
    update = view.latest.update
    delta, _ = defense.apply(update.delta, defense.init(update.delta), generator(seed, "defense"))
    latest = replace(view.latest, update=replace(update, delta=delta))
    return View([latest]), replace(auxiliary, defense=defense), counts


def times(factor):
    return Defense(name="times", apply=lambda p, s, g: ({n: factor * v for n, v in p.items()}, s))


@pytest.mark.parametrize("factor", [0.25, -2.0])
def test_what_a_linear_defense_does_is_undone(factor):
    view, auxiliary, _ = defended(times(factor))
    found = corrections(workspace(view, auxiliary), 40)
    parts = [torch.ones(4, 12), torch.ones(4)]
    assert all(torch.equal(a, b) for a, b in zip(found["none"](parts), parts, strict=True))
    if factor > 0:
        for part in found["scale"](parts):
            torch.testing.assert_close(part, torch.full_like(part, 1 / factor))
    first, second = ([c * v for v in parts] for c in (1.0, 3.0))
    for low, high in zip(found["expect"](first), found["expect"](second), strict=True):
        slope = (high - low) / 2  # of entries that vary at all
        moves = slope.abs() > 1e-9
        assert torch.allclose(slope[moves], torch.tensor(1 / factor).double(), rtol=1e-4)
        assert bool(moves.any())


@pytest.mark.slow
@pytest.mark.parametrize("inner", [rlu, eb_gls])
def test_a_clipped_update_is_scaled_back(inner):
    static, knowing = [], []
    for seed in range(8):
        view, auxiliary, counts = defended(clip(bound=0.05), seed=seed)
        static.append(asr(inner(view, auxiliary, generator(0)), counts))
        knowing.append(asr(infer(view, auxiliary, generator(0), inner=inner), counts))
    assert sum(knowing) > sum(static) + 8 * 0.1


@pytest.mark.parametrize(
    "local", [LOCAL, LocalTraining(lr=0.05, batch_size=8, epochs=2)], ids=["gradient", "weights"]
)
def test_nothing_is_corrected_where_nothing_was_done(local):
    view, auxiliary, _ = defended(chain(), local=local)
    size = 40 if local.upload == "gradient" else 45
    assert chosen(workspace(view, auxiliary), size, llg) == "none"
    guess = infer(view, auxiliary, generator(0), inner=llg)
    assert torch.equal(guess, llg(view, auxiliary, generator(0)))


def test_the_gradient_hook_is_rehearsed_too():
    seen = []

    def halve(model, parameters, inputs, labels, local, stream):
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        seen.append(len(labels))
        return [g / 2 for g in torch.autograd.grad(loss, list(parameters.values()))]

    view, auxiliary, _ = defended(Defense(name="half", gradient=halve))
    found = corrections(workspace(view, auxiliary), 40)
    assert set(seen) == {40}
    torch.testing.assert_close(found["scale"]([torch.ones(4, 12), torch.ones(4)])[1],
                               torch.full((4,), 2.0))  # fmt: skip


def test_every_label_attack_has_a_twin_where_the_defense_is_known():
    _, auxiliary, _ = defended(gaussian(std=0.1))
    parts = [Part(name=name) for name in ("llg", "eb-gls", "eb-gls-sim", "uniform")]
    names = lambda known: [attack.title for attack in selection.build(parts, known)]
    assert names(auxiliary) == [
        "llg", "llg (adaptive)", "eb-gls", "eb-gls (adaptive)", "eb-gls-sim", "uniform",
    ]  # fmt: skip
    assert names(replace(auxiliary, defense=None)) == [part.name for part in parts]
    nothing = replace(auxiliary, inputs=None, labels=None, input_shape=(4,))
    assert [a.name for a in selection.build(parts[:1], nothing)] == ["llg"]


def test_only_the_twin_is_handed_the_defense():
    view, auxiliary, _ = defended(gaussian(std=0.1))
    seen = {}

    def look(view, known, stream):
        seen[known.defense] = known
        return random_attack.infer(view, known, stream)

    attack = Attack(name="look", family="label", infer=look)
    answers.attack_view(view, [attack], auxiliary, seed=0)
    assert list(seen) == [None]
    answers.attack_view(view, [adaptive(attack)], auxiliary, seed=0)
    assert auxiliary.defense in seen


def test_a_client_that_tells_no_number_is_one_clear_error():
    view, auxiliary, _ = defended(clip())
    latest = replace(view.latest, update=replace(view.latest.update, num_examples=None))
    with pytest.raises(ValueError, match="num_examples: must be told"):
        infer(View([latest]), auxiliary, generator(0), inner=llg)


def test_every_attack_that_rehearses_clients_has_a_twin():
    assert {attack.family for attack in ATTACKS.values() if attack.rehearses} <= set(TWINS)
    assert all(attack.has_twin for attack in ATTACKS.values() if attack.rehearses)
