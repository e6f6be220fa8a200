"""Rounds as a server sees them where clients have a new pseudonym in every round."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from fedsim.core.ground_truth import Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.types import Observation, View

LATEST = 500  # uploads of one round, at most; more are sampled
EARLIER = 1000  # uploads of earlier rounds, at most: the last rounds, at least one


@dataclass(frozen=True)
class Unnamed:
    """Rounds without names, and who uploaded what, which only the grader reads.

    Attributes:
        view: Every round's uploads in random order, under pseudonyms; an observation per round
            stands for it, the first one.
        truth: Who uploaded each, in the order of the view.
    """

    view: View
    truth: Truth


def unnamed(
    rounds: Iterable[Mapping[str, Observation]],
    memory: Memory,
    seed: int,
    name_of: Callable[[int], Hashable] | None = None,
) -> Unnamed | None:
    """Return rounds without names; None where there is no earlier one.

    Of each round at most `LATEST` uploads are shown, drawn at random; of earlier ones at most
    `EARLIER` altogether, the last ones. So no round is compared in more than `LATEST · EARLIER`
    pairs.

    Args:
        rounds: The uploads of each, by client, the latest first; no more are asked for than
            are shown.
        memory: Of the latest round.
        seed: Of the run; the order of a round's uploads depends on it and on the round alone.
        name_of: Number of a round → what stands for all its uploads in the run's memory, so that
            they need not be read again.
    """
    shown: list[list[Observation]] = []
    clients: list[str] = []
    names: list[Hashable] = []
    for place, uploads in enumerate(rounds):
        if not uploads:
            continue
        some = _shuffled(uploads, seed)
        earlier = sum(map(len, shown[1:]))
        if place > 1 and earlier + len(some) > EARLIER:
            break
        shown.insert(0, [uploads[name] for name in some])  # oldest first
        clients = [*some, *clients]
        if name_of is not None:
            names.insert(0, (unnamed, name_of(shown[0][0].update.round), seed, *some))
    if len(shown) < 2:
        return None
    cohorts = [
        [_pseudonymous(observation, k) for k, observation in enumerate(cohort)] for cohort in shown
    ]
    codes = {name: code for code, name in enumerate(dict.fromkeys(clients))}
    uploaders = torch.tensor([codes[name] for name in clients])
    view = View([cohort[0] for cohort in cohorts], cohorts, memory, cohort_names=names)
    none = torch.zeros(0, dtype=torch.int64)
    return Unnamed(view, Truth(labels=none, indices=none, uploaders=uploaders))


def _shuffled(uploads: Mapping[str, Observation], seed: int) -> list[str]:
    names = sorted(uploads)
    round_ = uploads[names[0]].update.round
    order: Tensor = torch.randperm(len(names), generator=generator(seed, "unnamed", round_))
    return [names[place] for place in order[:LATEST].tolist()]


def _pseudonymous(observation: Observation, place: int) -> Observation:
    """Return an observation under a name that says nothing, files' names out of reach."""
    update = observation.update
    delta = MappingProxyType(update.delta)  # type: ignore[arg-type]
    return replace(observation, update=replace(update, client=f"upload-{place}", delta=delta))
