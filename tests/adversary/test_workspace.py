import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from adversary.workspace import Workspace, undefended, workspace
from fedsim.core.memory import Memory
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Params, Update, View

LOCAL = LocalTraining(0.1, 4)


def auxiliary_of(value: float = 0.0) -> Auxiliary:
    return Auxiliary(nn.Linear(1, 1), 2, inputs=torch.tensor([[value]]))


def view_of(client: str, sent: Params, memory: Memory, local: LocalTraining = LOCAL) -> View:
    return View([Observation(sent, Update(1, client, {}, 4), local)], memory=memory)


class Counting:
    """A part that counts how often it is made."""

    def __init__(self) -> None:
        self.calls: list[Workspace] = []

    def __call__(self, work: Workspace, factor: float = 1.0) -> Tensor:
        self.calls.append(work)
        assert work.auxiliary.inputs is not None
        return factor * (work.auxiliary.inputs + work.sent["w"])


def test_all_clients_of_a_round_share_a_workspace_and_its_parts():
    auxiliary, sent, memory, part = auxiliary_of(), {"w": torch.ones(1)}, Memory(), Counting()
    works = [workspace(view_of(name, sent, memory), auxiliary) for name in "abc"]
    assert works[0] is works[1] is works[2]
    first, *others = (work.part(part) for work in works)
    assert all(value is first for value in others)
    assert len(part.calls) == 1
    assert works[0].part(part, 2.0) is works[1].part(part, 2.0)
    assert float(works[0].part(part, 2.0)) == 2.0
    assert len(part.calls) == 2


def test_two_auxiliaries_do_not_mix_and_neither_do_models_protocols_and_rounds():
    auxiliary, sent, memory, part = auxiliary_of(), {"w": torch.ones(1)}, Memory(), Counting()
    view = view_of("a", sent, memory)
    assert float(workspace(view, auxiliary).part(part)) == 1.0
    assert float(workspace(view, auxiliary_of(5.0)).part(part)) == 6.0
    others = [
        (view, auxiliary_of()),  # equal, but another object
        (view_of("a", {**sent}, memory), auxiliary),
        (view_of("a", sent, memory, replace(LOCAL, lr=0.2)), auxiliary),
        (view_of("a", sent, Memory()), auxiliary),
    ]
    for view_, auxiliary_ in others:
        work = workspace(view_, auxiliary_)
        work.part(part)
        assert part.calls[-1] is work
    assert len(part.calls) == 2 + len(others)


def test_a_view_without_a_shared_memory_has_its_own():
    part, auxiliary = Counting(), auxiliary_of()
    view = View([Observation({"w": torch.ones(1)}, Update(1, "a", {}, 4), LOCAL)])
    for _ in range(2):
        workspace(view, auxiliary).part(part)
    assert len(part.calls) == 1


def test_a_derived_auxiliary_is_one_object_for_all_rounds():
    run, auxiliary = Memory(), replace(auxiliary_of(), defense="a defense")
    known = []
    for _ in range(2):
        view = view_of("a", {"w": torch.ones(1)}, Memory(run))
        work = workspace(view, auxiliary).derived(undefended)
        assert work is workspace(view, work.auxiliary)
        assert (work.sent, work.local, work.auxiliary.defense) == (view.latest.sent, LOCAL, None)
        known.append(work.auxiliary)
    assert known[0] is known[1]
    plain = auxiliary_of()
    work = workspace(view_of("a", {"w": torch.ones(1)}, Memory(run)), plain)
    assert work.derived(undefended) is work


def test_what_lasts_is_computed_once_for_all_rounds():
    run, auxiliary, calls = Memory(), auxiliary_of(), []
    lasting = lambda auxiliary: calls.append(auxiliary) or len(calls)
    for _ in range(3):
        work = workspace(view_of("a", {"w": torch.ones(1)}, Memory(run)), auxiliary)
        assert work.lasting(lasting) == 1


def test_an_earlier_round_has_a_workspace_in_the_same_memory():
    auxiliary, memory = auxiliary_of(), Memory()
    early, late = (
        Observation({"w": torch.full((1,), value)}, Update(k, "a", {}, 4), LOCAL)
        for k, value in ((1, 1.0), (2, 2.0))
    )
    view = View([early, late], memory=memory)
    work = workspace(view, auxiliary)
    assert work.at(late) is work
    assert work.at(early) is workspace(view.until(0), auxiliary)
    assert float(work.at(early).part(Counting())) == 1.0


def test_a_failure_is_not_kept():
    work = workspace(view_of("a", {}, Memory()), auxiliary_of())
    calls = []

    def fail(work: Workspace) -> None:
        calls.append(work)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            work.part(fail)
    assert len(calls) == 2


def test_a_workspace_and_its_parts_end_with_the_round():
    run, auxiliary = Memory(), auxiliary_of()
    with Memory(run) as memory:
        sent = {"w": torch.ones(1)}
        work = workspace(view_of("a", sent, memory), auxiliary)
        ends = [weakref.ref(work), weakref.ref(work.part(Counting())), weakref.ref(sent["w"])]
        del work, sent
        assert all(end() is not None for end in ends)
    gc.disable()
    try:
        assert all(end() is None for end in ends)
    finally:
        gc.enable()
