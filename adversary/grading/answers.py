"""What attacks answer to the view of one client: no truth comes near this module."""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adversary.attack import Attack
from adversary.grading.families import FAMILIES
from adversary.labels.validity import validity_number
from adversary.workspace import undefended, workspace
from fedsim.core.boundary import PASSING, explained
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate, Measure, View


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


def attack_view(
    view: View, attacks: Sequence[Attack], auxiliary: Auxiliary, seed: int
) -> list[Answer]:
    """Run every attack that is due on one client's view, and the blind guess of each family once.

    This is all the adversary does: no truth comes near it.
    """
    latest, static = view.latest.update, workspace(view, auxiliary).derived(undefended).auxiliary
    attacks = [attack for attack in attacks if attack.is_due(latest.round, latest.client)]
    prepared = {name: FAMILIES[name].prepare(view) for name in {a.family for a in attacks}}
    blinds: dict[tuple[str, bool], Tensor] = {}
    answers = []
    for attack in attacks:
        shown = prepared[attack.family]
        about = attack.family, _so_far(attack)
        if about not in blinds:
            blinds[about] = _blind_guess(shown, attack, static, seed)
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
    """Return how well several local steps can be read in this round, for attacks on labels."""
    latest = view.latest
    if latest.local.upload == "gradient" or all(attack.family != "label" for attack in attacks):
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
    family, latest = FAMILIES[attack.family], view.latest.update
    stream = generator(seed, "blind", family.name, latest.client, latest.round)
    blind = family.blind_so_far if attack.over_rounds else None
    return (blind or family.blind)(view, static, stream)


def without_gradient(attack: Attack, auxiliary: Auxiliary) -> str:
    """Return why inputs cannot be reconstructed, empty if they can: ids have no gradient."""
    inputs = auxiliary.inputs
    if attack.family != "reconstruction" or inputs is None or inputs.is_floating_point():
        return ""
    return "inputs: must be real numbers for a reconstruction, got whole numbers"


def _guess(
    view: View, attack: Attack, auxiliary: Auxiliary, static: Auxiliary, seed: int
) -> _Result:
    """Return a guess, or why there is none, and the attack's remark."""
    family, latest = FAMILIES[attack.family], view.latest.update
    stream = generator(seed, "infer", attack.title, latest.client, latest.round)
    try:
        if family.alone and latest.num_clients > 1:
            rule = f"num_clients: must be 1 to {family.alone}"
            raise NotApplicable(f"{rule}, got {latest.num_clients}")
        if reason := without_gradient(attack, auxiliary):
            raise NotApplicable(reason)
        names = ("infer", attack.title, latest.client, latest.round, "model")
        with _remarks() as remarks, global_stream(seed, *names):
            answer = attack.infer(view, auxiliary if attack.adaptive else static, stream)
            guess = _numbers(family.check(answer, auxiliary))
    except PASSING:  # also that the recording itself is damaged
        raise
    except BaseException as error:  # this update defeats this attack; the others go on
        return _Result(None, explained(error), refused=isinstance(error, NotApplicable))
    uncertainty = _uncertainty(answer, guess) if isinstance(answer, Estimate) else None
    return _Result(guess, remark="; ".join(remarks) or None, uncertainty=uncertainty)


def _numbers(guess: Tensor) -> Tensor:
    """Return the guess.

    Raises:
        ValueError: It has NaN in it, whose rank is arbitrary, and so is its grade.
    """
    if isinstance(guess, Tensor) and (count := int(guess.isnan().sum())):
        raise ValueError(f"guess: must be numbers, got {count} NaN of {guess.numel()} values")
    return guess


def _uncertainty(answer: Estimate, guess: Tensor) -> Tensor | None:
    """Return how uncertain each number of a guess is; None where that is no such thing."""
    given = answer.uncertainty.detach().cpu()
    whole = given.shape == guess.shape and bool(given.isfinite().all()) and bool((given >= 0).all())
    return given.float() if whole else None


@contextmanager
def _remarks() -> Iterator[list[str]]:
    """Collect the remarks of attacks inside the block; other warnings are passed on."""
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Remark)
        yield remarks
    for warning in caught:
        if issubclass(warning.category, Remark):
            remarks.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
