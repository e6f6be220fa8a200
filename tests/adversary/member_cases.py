"""Situations that membership and source attacks are tried in; plain functions."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from adversary.attack import Attack
from adversary.grading import selection
from adversary.grading.membership import grade_members, grade_ranges
from adversary.rehearsal import rehearse_with
from defenses import Defense
from fedsim.config import Part
from fedsim.core.ground_truth import Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates, LocalTraining, Observation, Ranges, View
from tests.adversary.label_cases import client
from tests.builders import bilinear

MODEL = bilinear(3, features=24)
SCALES = 4.0 ** torch.linspace(-1, 1, 4)  # some inputs say more, and louder, than others
ASKED = 100
RECORDS = torch.randn(400, 4, generator=generator(0, "member cases")) * SCALES
LABELS = torch.arange(400) % 3
GRADIENT, WEIGHTS = LocalTraining(0.1, 16, upload="gradient"), LocalTraining(0.02, 8, epochs=2)
SENT = {name: value.clone() for name, value in MODEL.state_dict().items()}
MEMORY = Memory()  # one for all rounds: they begin with the same weights
CANDIDATES = Candidates(RECORDS[:ASKED], LABELS[:ASKED])
NEAR = Ranges(RECORDS[:ASKED] - 0.05, RECORDS[:ASKED] + 0.05, LABELS[:ASKED])
KNOWN = Auxiliary(MODEL, 3, inputs=RECORDS[ASKED:], labels=LABELS[ASKED:], candidates=CANDIDATES)


def round_of(
    seed: int, local: LocalTraining = GRADIENT, *, clients: int = 5, size: int = 16
) -> tuple[list[View], list[Truth]]:
    """Return views and truths of clients that share no example, all of them candidates."""
    order = torch.randperm(ASKED, generator=generator(seed, "members"))
    users = torch.isin(torch.arange(ASKED), order[: clients * size]).long()
    seen, truths = [], []
    for place, mine in enumerate(order[: clients * size].split(size)):
        [found] = client(MODEL, RECORDS[mine], LABELS[mine], local, seed=seed).observations
        update = replace(found.update, client=str(place))
        seen.append(replace(found, sent=SENT, update=update))
        members = torch.isin(torch.arange(ASKED), mine)
        of = LABELS[:ASKED]
        truths.append(
            Truth(LABELS[mine], mine, members, of, users, ranges=members, range_classes=of)
        )
    return [View([one], [seen], MEMORY) for one in seen], truths


def aurocs(infer, *, local=GRADIENT, trials: int = 10, known: Auxiliary = KNOWN) -> Tensor:
    """Return the AUROC of an attack for every client of several rounds."""
    found = []
    for seed in range(trials):
        views, truths = round_of(seed, local)
        for view, truth in zip(views, truths, strict=True):
            found.append(grade_members(infer(view, known, generator(0)), truth)["auroc"])
    return torch.tensor(found)


def gains_of_knowing(
    name: str, defense: Defense, *, rounds: int = 8
) -> tuple[list[Attack], list[float]]:
    """Return an attack and its adaptive twin, and by how much the twin's AUROC is higher."""
    knowing = replace(KNOWN, defense=defense, ranges=NEAR)
    static, twin = selection.build([Part(name=name)], knowing)
    unaware, gains = replace(knowing, defense=None), []
    for seed in range(rounds):
        views, truths = round_of(seed)
        cohort = [
            defended_by(defense, view, truth, generator(seed, "coins", place))
            for place, (view, truth) in enumerate(zip(views, truths, strict=True))
        ]
        for one, view, truth in zip(cohort, views, truths, strict=True):
            defended = View([one], [cohort], view.memory)
            plain, adaptive = (
                score(attack, attack.infer(defended, auxiliary, generator(0)), truth)
                for attack, auxiliary in ((static, unaware), (twin, knowing))
            )
            gains.append(adaptive - plain)
    return [static, twin], gains


def defended_by(defense: Defense, view: View, truth: Truth, coins: torch.Generator) -> Observation:
    """Return what the client of a view uploads under a defense, inside training or after it."""
    seen = view.latest
    if defense.gradient is not None:
        mine, model = truth.indices, copy.deepcopy(MODEL)
        given = RECORDS[mine], LABELS[mine], coins
        seen = rehearse_with(seen, model, *given, defense=defense)
        seen = replace(seen, update=replace(seen.update, client=view.latest.update.client))
    delta, _ = defense.apply(seen.update.delta, defense.init(seen.update.delta), coins)
    return replace(seen, update=replace(seen.update, delta=delta))


def score(attack: Attack, guess: Tensor, truth: Truth) -> float:
    """Return the AUROC of members or of ranges with a member."""
    grade = grade_ranges if attack.family == "range" else grade_members
    return grade(guess, truth)["auroc"]


def own_gradients(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return every record's gradient by itself, flat, float64."""
    found = []
    for x, y in zip(inputs.split(1), labels.split(1), strict=True):
        loss = nn.functional.cross_entropy(model(x), y)
        parts = torch.autograd.grad(loss, list(model.parameters()))
        found.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found).double()


def flat(update) -> Tensor:
    """Return an update's tensors in one, float64."""
    return torch.cat(
        [update.delta[name].flatten() for name, _ in MODEL.named_parameters()]
    ).double()
