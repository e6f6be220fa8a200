"""What attacks answer to the view of one client: no truth comes near this module."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from adversary import placement
from adversary.attack import Attack
from adversary.costs import allocation
from adversary.grading.families import FAMILIES, Family
from adversary.grading.refusals import inapplicable
from adversary.labels.validity import validity_number
from adversary.workspace import undefended, workspace
from fedsim.core.boundary import PASSING, explained
from fedsim.core.errors import NotApplicable, remarks_of_attacks
from fedsim.core.progress import answering
from fedsim.core.rng import generator, global_stream
from fedsim.core.rows import Measure
from fedsim.core.types import Auxiliary, Estimate, View

MOST = 2**26  # numbers in the models of the views that are answered at once

Given = Mapping[tuple[str, str], tuple[Tensor, float]]
"""Title of an attack, and a client → the guess, and the seconds that it took."""
Blinds = Mapping[tuple[str, str], Tensor]
"""Name of a family, and a client → the blind guess."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One attack's answer to one view; `guess` is None where it failed or refused, for `reason`.

    `uncertainty` has a number from 0 for each of the guess, where the attack says how sure it is
    (`fedsim.core.types.Estimate`).

    An attack that answers may have a remark to make of it (`fedsim.core.errors.Remark`). It refuses
    by `fedsim.core.errors.NotApplicable`; whatever else it raises is a failure.
    """

    view: View
    attack: Attack
    guess: Tensor | None
    blind: Tensor
    seconds: float
    reason: str | None = None
    remark: str | None = None
    refused: bool = False
    uncertainty: Tensor | None = None


class _Result(NamedTuple):
    """What an attack returned, or why it returned nothing."""

    guess: Tensor | None
    reason: str | None = None
    remark: str | None = None
    refused: bool = False
    uncertainty: Tensor | None = None


def attack_together(
    views: Sequence[View], attacks: Sequence[Attack], auxiliary: Auxiliary, seed: int
) -> dict[tuple[str, str], tuple[Tensor, float]]:
    """Return the answers of those attacks that answer many views at once.

    What an attack cannot answer so is left out: `attack_view` runs it on that view alone, and says
    what it fails of.

    Args:
        views: Of one round.
        attacks: Any.
        auxiliary: What the adversary knew before round 1.
        seed: The run's.
    """
    given: dict[tuple[str, str], tuple[Tensor, float]] = {}
    size = sum(value.numel() for value in auxiliary.model.state_dict().values())
    count = max(1, MOST // max(1, size))
    for attack in attacks:
        able = [view for view in views if _is_asked(view, attack, auxiliary)]
        for begin in range(0, len(able) if attack.infer_all else 0, count):
            some, start = able[begin : begin + count], time.perf_counter()
            guesses = _guess_all(some, attack, auxiliary, seed)
            seconds = (time.perf_counter() - start) / len(some)
            for view, guess in zip(some, guesses, strict=True):
                if guess is not None:
                    given[attack.title, view.latest.update.client] = guess, seconds
    return given


def blind_together(
    views: Sequence[View], attacks: Sequence[Attack], auxiliary: Auxiliary, seed: int
) -> dict[tuple[str, str], Tensor]:
    """Return the blind guesses of families that make many at once; arguments as above."""
    blinds: dict[tuple[str, str], Tensor] = {}
    for name in {a.family for a in attacks if not _so_far(a)} if views else ():
        if (family := FAMILIES[name]).blind_all is None:
            continue
        static = workspace(views[0], auxiliary).derived(undefended).auxiliary
        shown = [family.prepare(view) for view in views]
        clients = [view.latest.update.client for view in shown]
        streams = [_blind_stream(view, family, seed) for view in shown]
        guesses = family.blind_all(shown, static, streams)
        blinds |= {(name, client): guess for client, guess in zip(clients, guesses, strict=True)}
    return blinds


def attack_view(
    view: View,
    attacks: Sequence[Attack],
    auxiliary: Auxiliary,
    seed: int,
    given: Given | None = None,
    made: Blinds | None = None,
) -> list[Answer]:
    """Run every attack that is due on one client's view, and the blind guess of each family once.

    This is all the adversary does: no truth comes near it.

    Args:
        view: The client's.
        attacks: Those of the round.
        auxiliary: What the adversary knew before round 1.
        seed: The run's.
        given: What `attack_together` answers to views of the round.
        made: What `blind_together` returns for them.
    """
    given, made = given or {}, made or {}
    latest, static = view.latest.update, workspace(view, auxiliary).derived(undefended).auxiliary
    attacks = [attack for attack in attacks if attack.is_due(latest.round, latest.client)]
    prepared = {name: FAMILIES[name].prepare(view) for name in {a.family for a in attacks}}
    blinds: dict[tuple[str, bool], Tensor] = {}
    answers = []
    for attack in attacks:
        shown = prepared[attack.family]
        about = attack.family, _so_far(attack)
        if about not in blinds:
            guess = None if _so_far(attack) else made.get((attack.family, latest.client))
            blinds[about] = _blind_guess(shown, attack, static, seed) if guess is None else guess
        if (answered := given.get((attack.title, latest.client))) is not None:
            result, seconds = _Result(answered[0]), answered[1]
        else:
            start = time.perf_counter()
            result = _guess(shown, attack, auxiliary, static, seed)
            seconds = time.perf_counter() - start
        answer = Answer(
            view=view, attack=attack, blind=blinds[about], seconds=seconds, **result._asdict()
        )
        answers.append(answer)
    return answers


def refusal(view: View, attack: Attack, reason: str) -> Answer:
    """Return the answer of an attack that is not run on a view, because it cannot apply to it."""
    blind = torch.zeros(0)
    return Answer(
        view=view, attack=attack, guess=None, blind=blind, seconds=0.0, reason=reason, refused=True
    )


def validity(view: View, attacks: Sequence[Attack], auxiliary: Auxiliary) -> list[Measure]:
    """Return how well several local steps can be read in this round, for attacks on labels.

    Logits of tokens come from no head of classes.
    """
    latest = view.latest
    on_labels = any(attack.family == "label" for attack in attacks)
    if latest.local.upload == "gradient" or not on_labels or auxiliary.per_token:
        return []
    try:
        number = validity_number(workspace(view, auxiliary).derived(undefended))
    except PASSING:
        raise
    except BaseException:  # no linear head, or a model that runs otherwise: the attacks say so
        return []
    return [Measure(latest.update.round, "server", "validity", number)]


def _so_far(attack: Attack) -> bool:
    """Return whether it is held against the blind guess about all that a client has used so far."""
    return attack.over_rounds and FAMILIES[attack.family].blind_so_far is not None


def _blind_guess(view: View, attack: Attack, static: Auxiliary, seed: int) -> Tensor:
    family = FAMILIES[attack.family]
    blind = family.blind_so_far if attack.over_rounds else None
    return (blind or family.blind)(view, static, _blind_stream(view, family, seed))


def _blind_stream(view: View, family: Family, seed: int) -> Generator:
    latest = view.latest.update
    return generator(seed, "blind", family.name, latest.client, latest.round)


def _is_asked(view: View, attack: Attack, auxiliary: Auxiliary) -> bool:
    """Return whether an attack is run on a view."""
    latest = view.latest.update
    due = attack.is_due(latest.round, latest.client)
    return due and not inapplicable(view, attack, auxiliary)


def _guess_all(
    views: Sequence[View], attack: Attack, auxiliary: Auxiliary, seed: int
) -> list[Tensor | None]:
    """Return an attack's guesses; None for a view that it does not answer, or makes a remark on."""
    assert attack.infer_all is not None
    family, latest = FAMILIES[attack.family], views[0].latest.update
    shown = [family.prepare(view) for view in views]
    static = workspace(views[0], auxiliary).derived(undefended).auxiliary
    try:
        with (
            remarks_of_attacks() as remarks,
            global_stream(seed, "infer", attack.title, latest.round),
        ):
            answers = attack.infer_all(shown, static)
            guesses = [_numbers(family.check(answer, auxiliary)) for answer in answers]
    except PASSING:
        raise
    except NotApplicable:  # to the model, or the protocol
        return [None] * len(views)
    except BaseException:  # an update defeats the attack; the others are answered without it
        guesses, remarks = [], []
    if len(guesses) == len(views) and not remarks:
        return [*guesses]
    if len(views) == 1:
        return [None]
    halves = views[: len(views) // 2], views[len(views) // 2 :]
    return [guess for half in halves for guess in _guess_all(half, attack, auxiliary, seed)]


def _guess(
    view: View, attack: Attack, auxiliary: Auxiliary, static: Auxiliary, seed: int
) -> _Result:
    """Return a guess, or why there is none, and the attack's remark."""
    family, latest = FAMILIES[attack.family], view.latest.update
    stream = generator(seed, "infer", attack.title, latest.client, latest.round)
    try:
        if reason := inapplicable(view, attack, auxiliary):
            raise NotApplicable(reason)
        names = ("infer", attack.title, latest.client, latest.round, "model")
        with (
            remarks_of_attacks() as remarks,
            global_stream(seed, *names),
            answering(f"{attack.title}, client {latest.client}"),
        ):
            answer = placement.answer(
                attack, view, auxiliary if attack.adaptive else static, stream
            )
            guess = _numbers(family.check(answer, auxiliary))
    except PASSING:  # also that the recording itself is damaged
        raise
    except BaseException as error:  # this update defeats this attack; the others go on
        reason = allocation(error) or explained(error)
        return _Result(None, reason, refused=isinstance(error, NotApplicable))
    uncertainty = _uncertainty(answer, guess) if isinstance(answer, Estimate) else None
    return _Result(guess, remark="; ".join(remarks) or None, uncertainty=uncertainty)


def _numbers(guess: Tensor) -> Tensor:
    """Return the guess.

    Raises:
        ValueError: It has NaN in it, whose rank is arbitrary, and so is its grade.
    """
    floating = isinstance(guess, Tensor) and (guess.is_floating_point() or guess.is_complex())
    if floating and (count := int(guess.isnan().sum())):
        raise ValueError(f"guess: must be numbers, got {count} NaN of {guess.numel()} values")
    return guess


def _uncertainty(answer: Estimate, guess: Tensor) -> Tensor | None:
    """Return how uncertain each number of a guess is; None where that is no such thing."""
    given = answer.uncertainty.detach().cpu()
    whole = given.shape == guess.shape and bool(given.isfinite().all()) and bool((given >= 0).all())
    return given.float() if whole else None
