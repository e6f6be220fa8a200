"""What an adversary computes on an accelerator equals the CPU's to the bit, and is left nowhere.

The accelerator is a simulated one (`tests.accelerator`): a tensor that was forgotten on the CPU
fails here.
"""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from adversary import placement
from adversary.attack import Attack
from adversary.attacks import ATTACKS
from adversary.games import learn
from adversary.grading.selection import build, kinds_of
from adversary.inversion import tuning
from adversary.members import shadows
from defenses import build as build_defenses
from fedsim.config import Part
from fedsim.conformance import board, properties
from fedsim.core import devices
from fedsim.core.catalog import options_of
from fedsim.core.devices import CPU, here, moved, on, run_on, with_doubles
from fedsim.core.errors import Remark
from fedsim.core.memory import Memory
from fedsim.core.rehearsals import Rehearsals
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Candidates, LocalTraining, Observation, View
from tests.accelerator import DEVICE, accelerator
from tests.adversary.text import cases
from tests.adversary.text.small import texts

FEW = {"iterations": 3, "restarts": 2}
KINDS = (  # each way of computing once; all others are slow
    *("eb-gls", "dlg", "tab-leak", "analytic", "spear", "r-gap", "april", "joint"),
    *("auto-reconstruct", "cosine-mia", "update-lira", "source-inference"),
)
LOCAL = LocalTraining(0.1, 4, momentum=0.5)


def few(attack: Attack) -> Attack:
    """Return an attack that takes few steps, where it takes steps."""
    options = {name: FEW[name] for name in set(FEW) & set(options_of(attack.infer))}
    return replace(attack, infer=partial(attack.infer, **options))


def answered(attack: Attack, view: View, knows: Auxiliary, device: torch.device) -> Any:
    """Return what an attack answers, or why it does not."""
    fresh = View(view.observations, view.cohorts, Memory())
    rehearsals = Rehearsals(knows.rehearsals.batch)
    placed = replace(knows, device=device, rehearsals=rehearsals)
    with warnings.catch_warnings(), global_stream(0, "infer"):
        warnings.simplefilter("ignore", Remark)
        try:
            answer = placement.answer(attack, fresh, placed, generator(0))
        except ValueError as error:  # too few steps for it, or not its kind
            return str(error)
    assert not rehearsals.counted() or rehearsals.batch > 1
    return answer


def tensors(answer: Any) -> list[Tensor]:
    """Return what is in an answer."""
    if isinstance(answer, Tensor):
        return [answer]
    if isinstance(answer, list):
        return answer
    return [it for it in vars(answer).values() if isinstance(it, Tensor)]


def same(attack: Attack, view: View, knows: Auxiliary) -> bool:
    """Return whether an attack's answer is the same from the accelerator, and lies on the CPU."""
    plain = answered(attack, view, knows, CPU)
    with accelerator():
        there = answered(attack, view, knows, DEVICE)
    if isinstance(plain, str):
        return plain == there
    pairs = list(zip(tensors(there), tensors(plain), strict=True))
    return all(type(x) is Tensor and torch.equal(x, y) for x, y in pairs)


def names(*only: str) -> Any:
    """Run a test once per attack on values; all but one of a kind are slow."""
    listed = [name for name, attack in ATTACKS.items() if "values" in kinds_of(attack)]
    listed = [name for name in listed if ATTACKS[name].family != "linkage"]
    rows = [
        name if name in KINDS else pytest.param(name, marks=pytest.mark.slow)
        for name in only or listed
    ]
    return pytest.mark.parametrize("name", rows)


@pytest.fixture(autouse=True)
def _few_rehearsals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "ITERATIONS", 3)
    monkeypatch.setattr(shadows, "SHADOWS", {"gradient": 6, "weights": 6})
    for name in ("gradient", "weights"):
        monkeypatch.setitem(learn.SHADOWS, name, 60)


@names()
def test_an_attack_answers_from_there_as_on_the_cpu(name: str) -> None:
    attack = ATTACKS[name]
    if attack.family == "reconstruction":
        view, knows = properties._example(attack)
        attack = few(attack)
    else:
        view, knows = board.trial(0, size=5)[0], board.AUXILIARY
    assert same(attack, view, knows)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(
    "name", ["update-lira", *(pytest.param(it, marks=pytest.mark.slow) for it in ("rmia", "pia"))]
)
def test_clients_that_train_are_rehearsed_there(name: str, batch: int) -> None:
    view = board.trial(0, size=5)[0]

    def trained(observation: Observation) -> Observation:
        delta = {key: -0.1 * value for key, value in observation.update.delta.items()}
        return Observation(observation.sent, replace(observation.update, delta=delta), LOCAL)

    cohorts = [[trained(it) for it in cohort] for cohort in view.cohorts]
    knows = replace(board.AUXILIARY, rehearsals=Rehearsals(batch))
    assert same(ATTACKS[name], View([trained(view.latest)], cohorts), knows)


@pytest.mark.parametrize(
    ("name", "defense"),
    [
        ("llg", "clip"),
        pytest.param("cosine-mia", "dp-sgd", marks=pytest.mark.slow),
        pytest.param("pia", "clip", marks=pytest.mark.slow),
    ],
)
def test_who_knows_the_defense_rehearses_it_there(name: str, defense: str) -> None:
    knows = replace(board.AUXILIARY, defense=build_defenses([Part(name=defense)]))
    *_, adaptive = build([Part(name=name)], knows)
    assert adaptive.adaptive
    assert same(adaptive, board.trial(0, size=5)[0], knows)


@pytest.mark.parametrize(
    "name",
    [
        *("row-bayes", "exposure", "dager"),
        *(
            pytest.param(it, marks=pytest.mark.slow)
            for it in ("tokens-moved", "token-rows", "positions", "span-pursuit", "sampled-texts")
        ),
    ],
)
def test_texts_are_read_there(name: str) -> None:
    model = cases.build("gpt")
    inputs, targets = texts(40, vocabulary=cases.SIZE, length=cases.LENGTH)
    knows = replace(
        cases.auxiliary_of(model, inputs=inputs[20:]),
        labels=targets[20:],
        candidates=Candidates(inputs[:6], targets[:6]),
        canaries=Candidates(inputs[:4], targets[:4]),
    )
    seen = cases.observed(model, cases.gradient(model, inputs[:1], targets[:1]), 1)
    assert same(ATTACKS[name], View([seen], [[seen]]), knows)


def test_what_is_moved_is_moved_once_and_in_its_order() -> None:
    view = board.trial(0, size=2)[0]
    seen: list[View] = []
    looks = Attack(
        name="looks",
        family="membership",
        infer=lambda view, knows, stream: (seen.append(view), torch.zeros(1))[1],
        on_device=True,
    )
    with accelerator():
        for _ in range(2):
            placement.answer(looks, view, replace(board.AUXILIARY, device=DEVICE), generator(0))
    first, second = seen
    assert first.latest is second.latest
    assert first.latest.sent is first.cohort[3].sent
    assert first.cohort is second.cohort
    assert [it.update.client for it in first.cohort] == list("01234567")
    assert first.latest.update.delta["2.bias"].device == DEVICE


def test_without_doubles_an_attack_stays_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    mps = torch.device("mps")
    assert with_doubles(mps) == CPU
    assert with_doubles(DEVICE) == DEVICE
    assert placement.device_of(ATTACKS["dlg"], replace(board.AUXILIARY, device=mps)) == CPU
    assert placement.device_of(ATTACKS["llg"], replace(board.AUXILIARY, device=DEVICE)) == CPU


def test_a_block_inside_another_changes_nothing() -> None:
    with accelerator(), on(DEVICE):
        with on(CPU), on(DEVICE):
            assert here() == DEVICE
            assert run_on(CPU, torch.zeros, 2).device == DEVICE
        assert here() == DEVICE
    assert here() == CPU
    counts = Rehearsals().alone
    assert moved({"alone": counts}, DEVICE)["alone"] is counts


def test_names_of_no_device_are_refused() -> None:
    with pytest.raises(devices.ConfigError, match="--device: must be cuda, mps, cpu or auto"):
        devices.resolved("gpu", "--device")


def test_labels_and_links_are_read_on_the_cpu() -> None:
    there = {attack.family for attack in ATTACKS.values() if attack.on_device}
    assert not there & {"label", "linkage", "tokens"}
