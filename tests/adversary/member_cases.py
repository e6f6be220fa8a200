"""Situations that membership and source attacks are tried in; plain functions."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from adversary.attack import Attack
from adversary.grading import selection
from adversary.grading.families import grade_members
from defenses import Defense
from fedsim.config import Part
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates, LocalTraining, Truth, View
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
        truths.append(Truth(LABELS[mine], mine, members, LABELS[:ASKED], users))
    return [View([one], [seen], MEMORY) for one in seen], truths


def aurocs(infer, *, local=GRADIENT, trials: int = 10, known: Auxiliary = KNOWN) -> Tensor:
    """Return the AUROC of an attack for every client of several rounds."""
    found = []
    for seed in range(trials):
        views, truths = round_of(seed, local)
        for view, truth in zip(views, truths, strict=True):
            found.append(grade_members(infer(view, known, generator(0)), truth)["auroc"])
    return torch.tensor(found)


def gains_of_knowing(name: str, defense: Defense) -> tuple[list[Attack], list[float]]:
    """Return an attack and its adaptive twin, and by how much the twin's AUROC is higher."""
    knowing = replace(KNOWN, defense=defense)
    static, twin = selection.build([Part(name=name)], knowing)
    gains = []
    for seed in range(8):
        views, truths = round_of(seed)
        for place, (view, truth) in enumerate(zip(views, truths, strict=True)):
            update = view.latest.update
            coins = generator(seed, "coins", place)
            delta, _ = defense.apply(update.delta, defense.init(update.delta), coins)
            observation = replace(view.latest, update=replace(update, delta=delta))
            defended = View([observation], memory=view.memory)
            plain, adaptive = (
                grade_members(attack.infer(defended, auxiliary, generator(0)), truth)["auroc"]
                for attack, auxiliary in ((static, KNOWN), (twin, knowing))
            )
            gains.append(adaptive - plain)
    return [static, twin], gains


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
