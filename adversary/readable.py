"""What attacks will not be able to read of a model's updates, from updates of random examples."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from adversary.attack import Attack
from adversary.inversion.fully_connected import first_layer
from adversary.inversion.reading import mean_gradient
from adversary.labels.head import read_head
from adversary.labels.projections import moved_tensors
from adversary.text.inverted import spanned
from adversary.text.rehearsed import rehearsable
from adversary.workspace import Workspace, undefended, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.memory import Memory
from fedsim.core.types import Auxiliary, Observation, View

READERS: Mapping[str, Callable[[Observation, Workspace], Any]] = {
    "head": read_head,
    "update": moved_tensors,
    "first layer": lambda observation, work: first_layer(
        mean_gradient(observation, work.auxiliary), work.auxiliary
    ),
    "spans": spanned,
    "rehearsed texts": lambda _, work: rehearsable(work) if work.auxiliary.defense else None,
}


class Reader(NamedTuple):
    """What an attack reads, and whether it knows the clients' defense."""

    reads: str
    adaptive: bool


def unread(
    attacks: Iterable[Attack],
    auxiliary: Auxiliary,
    trials: Iterable[Observation],
    memory: Memory,
) -> Mapping[str, tuple[str, ...]]:
    """Return why attacks will refuse every update: reason → their titles.

    Args:
        attacks: Those that read nothing in particular are left out.
        auxiliary: What the adversary knows; its model decides.
        trials: Updates of this model. What one of them lets an attack read is read; the second is
            made only where the first refuses an attack.
        memory: Keeps what is computed of the model.
    """
    attacks = [attack for attack in attacks if attack.reads]
    left, reasons = {_reader(attack) for attack in attacks}, dict[Reader, str]()
    for observation in trials if attacks else ():
        work = workspace(View([observation], memory=memory), auxiliary)
        works = {True: work, False: work.derived(undefended)}
        refusals = {it: _refused(observation, works[it.adaptive], it.reads) for it in left}
        reasons = {it: reason for it, reason in refusals.items() if reason}
        left = set(reasons)
        if not left:
            break
    refused: dict[str, list[str]] = {}
    for attack in attacks:
        if (reader := _reader(attack)) in reasons:
            refused.setdefault(reasons[reader], []).append(attack.title)
    return {reason: tuple(titles) for reason, titles in refused.items()}


def _reader(attack: Attack) -> Reader:
    return Reader(attack.reads, attack.adaptive)


def _refused(observation: Observation, work: Workspace, name: str) -> str | None:
    try:
        READERS[name](observation, work)
    except NotApplicable as error:
        return str(error)
    return None
