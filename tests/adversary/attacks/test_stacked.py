from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from adversary.attacks import stacked as stacking
from adversary.attacks.eb_gls import eb_gls
from adversary.attacks.stacked import CLIENTS, FIRST, PEERS, rehearsals
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.memory import Memory
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining, Params, View
from tests.adversary.label_cases import asr, client, untrained

MEMORY = Memory()  # of the one round that all victims are of
CLASSES, SIZE = 4, 40
LOCAL = LocalTraining(lr=0.2, batch_size=8, epochs=5)
EVEN, UNEVEN = [10, 10, 10, 10], [24, 10, 4, 2]


def blobs(labels: Tensor, seed: int) -> Tensor:
    centres = torch.randn(CLASSES, 6, generator=generator(0, "centres"))
    return centres[labels] + torch.randn(len(labels), 6, generator=generator(seed, "blobs"))


@lru_cache(maxsize=1)
def trained() -> nn.Module:
    """Return a model that knows the blobs."""
    with global_stream(0, "model"):
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    labels = torch.arange(400) % CLASSES
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(blobs(labels, 1)), labels).backward()
        optimiser.step()
    return model


def victim(counts: list[int], seed: int) -> tuple[View, Auxiliary]:
    labels = torch.arange(CLASSES).repeat_interleave(torch.tensor(counts))
    view = client(trained(), blobs(labels, seed), labels, LOCAL, seed=seed)
    latest = replace(view.latest, sent=sent())
    return View([latest], memory=MEMORY), adversary()


@pytest.mark.parametrize(("batch_size", "counts"), [(8, EVEN), (15, [12, 4, 2, 2])])
def test_models_with_batch_norm_are_rehearsed(batch_size, counts):
    with global_stream(0, "model"):
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))
    labels = torch.arange(CLASSES).repeat_interleave(torch.tensor(counts))
    local = LocalTraining(lr=0.1, batch_size=batch_size)
    view = client(model, blobs(labels, 0), labels, local)
    known = torch.arange(101) % CLASSES
    auxiliary = Auxiliary(model, CLASSES, inputs=blobs(known, 2), labels=known)
    guess = eb_gls(view, auxiliary, generator(0, "infer"))
    assert asr(guess, torch.tensor(counts)) > 0.8


@lru_cache(maxsize=1)
def sent() -> Params:
    return {name: value.clone() for name, value in trained().state_dict().items()}


@lru_cache(maxsize=1)
def adversary() -> Auxiliary:
    known = torch.arange(200) % CLASSES
    return Auxiliary(trained(), CLASSES, inputs=blobs(known, 2), labels=known)


def test_even_and_uneven_labels_are_both_answered_better_than_plainly():
    gains = []
    for counts in (EVEN, UNEVEN):
        truth = torch.tensor(counts)
        for seed in range(10, 16):
            view, auxiliary = victim(counts, seed)
            plain = eb_gls(view, auxiliary, generator(0), refine="search") // LOCAL.epochs
            answer = eb_gls(view, auxiliary, generator(0)) // LOCAL.epochs
            assert int(answer.sum()) == SIZE
            gains.append(asr(answer, truth) - asr(plain, truth))
    assert sum(gains[:6]) > 0
    assert sum(gains[6:]) > -0.1


def test_the_answer_is_the_same_for_the_same_client_whoever_came_before():
    first, auxiliary = victim(UNEVEN, 10)
    other, _ = victim(EVEN, 11)
    answer = eb_gls(first, auxiliary, generator(0))
    alone = replace(first, memory=Memory())
    eb_gls(other, auxiliary, generator(5))
    assert torch.equal(eb_gls(alone, auxiliary, generator(7)), answer)


def test_an_answer_that_is_good_enough_stands_after_few_rehearsals(monkeypatch):
    drawn = []
    rehearse_all = stacking.rehearse_all

    def counted(like, work, clients):
        for upload in rehearse_all(like, work, clients):
            drawn.append(1)
            yield upload

    monkeypatch.setattr(stacking, "rehearse_all", counted)
    view, auxiliary = untrained([9, 0, 3, 4], lr=1e-3, batch_size=4, epochs=2, upload="weights")
    assert eb_gls(view, auxiliary, generator(0)).tolist() == [18, 0, 6, 8]
    assert len(drawn) == FIRST


@pytest.mark.parametrize("every", [1, 2])
def test_rehearsals_that_blow_up_are_left_out(every):
    view, auxiliary = victim(UNEVEN, 10)
    work, calls = workspace(view, auxiliary), []

    def plain(client, work):
        calls.append(1)
        if len(calls) % every == 0:
            raise ValueError("update: it must be finite, got inf")
        return torch.tensor(EVEN)

    outcome = rehearsals(work, SIZE, plain)
    assert len(calls) == len(CLIENTS)
    assert (outcome.stack is None) == (every == 1)


def test_peers_that_cannot_read_the_update_are_left_out(monkeypatch):
    def refusing(*_):
        raise NotApplicable("peer: the head must have a bias, got none")

    monkeypatch.setattr(stacking, "PEERS", (refusing, *PEERS[:2]))
    work = workspace(*victim(UNEVEN, 10))
    assert rehearsals(work, 16, lambda *_: torch.full((4,), 4)).peers == (1, 2)


@pytest.mark.parametrize("form", ["gradient", "cohort", "gibbs"])
def test_one_step_cohorts_and_other_answers_are_not_rehearsed(form, monkeypatch):
    monkeypatch.setattr(stacking, "rehearsals", None)
    view, auxiliary = victim(UNEVEN, 10)
    latest = view.latest
    if form == "gradient":
        latest = replace(latest, local=replace(LOCAL, upload="gradient", epochs=1))
    if form == "cohort":
        latest = replace(latest, update=replace(latest.update, num_clients=2))
    refine = "gibbs" if form == "gibbs" else ""
    counts = eb_gls(View([latest]), auxiliary, generator(0), refine=refine)
    assert int(counts.min()) >= 0
