"""Attack views and grade the guesses: the adversary's half of a round."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from adversary.adaptive.labels import TWINS, adaptive
from adversary.attack import Attack
from adversary.attacks import ATTACKS
from adversary.grading.families import FAMILIES
from adversary.labels.validity import validity_number
from adversary.over_rounds import over_rounds
from adversary.schedule import scheduled
from adversary.workspace import undefended, workspace
from fedsim.config import Part
from fedsim.core.catalog import check_options, find, with_extensions
from fedsim.core.errors import ConfigError, FedsimError, Remark, one_line
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Leak, Measure, Note, Truth, View


@dataclass(frozen=True)
class Answer:
    """One attack's answer to one view; `guess` is None where it failed, for `reason`.

    An attack that answers may have a remark to make of it (`fedsim.core.errors.Remark`).
    """

    view: View
    attack: Attack
    guess: Tensor | None
    blind: Tensor
    seconds: float
    reason: str | None = None
    remark: str | None = None


def needs(parts: Iterable[Part]) -> set[str]:
    """Return the fields of Auxiliary that the attacks of a config cannot do without.

    Raises:
        ConfigError: A name is unknown.
    """
    return {field for attack in listed(parts) for field in attack.needs}


def listed(parts: Iterable[Part]) -> list[Attack]:
    """Return the attacks that a config lists, as they are without options.

    Raises:
        ConfigError: A name is unknown.
    """
    return [attack for _, attack in _found(parts)]


def build(parts: Iterable[Part], auxiliary: Auxiliary) -> list[Attack]:
    """Return the attacks that a config lists, and each one's adaptive twin after it.

    Twins are for an adversary that knows the clients' defense and has auxiliary data.

    Raises:
        ConfigError: A name or an option is unknown, or the adversary lacks what one needs.
    """
    attacks = []
    for part, found in _found(parts):
        for field in found.needs:
            if getattr(auxiliary, field) is None:
                raise ConfigError(f"attack.{part.name}: needs auxiliary {field}, got none")
        find(f"attack.{part.name}.family", found.family, FAMILIES)
        planned, own = scheduled(f"attack.{part.name}", found, part.options)
        options = check_options(f"attack.{part.name}", found.infer, own)
        # In the ledger it goes by the name that the config knows it by.
        attack = replace(planned, name=part.name, infer=partial(found.infer, **options))
        attacks.append(over_rounds(attack))
        if _has_adaptive(attack, auxiliary):
            attacks.append(over_rounds(adaptive(attack)))
    return attacks


def _found(parts: Iterable[Part]) -> Iterator[tuple[Part, Attack]]:
    known = with_extensions(ATTACKS, "attacks")
    for part in parts:
        attack = find("attack.name", part.name, known)
        if not isinstance(attack, Attack):
            raise ConfigError(f"attack.name: must be an Attack, got {part.name} = {attack!r}")
        yield part, attack


def _has_adaptive(attack: Attack, auxiliary: Auxiliary) -> bool:
    known = (auxiliary.defense, auxiliary.inputs, auxiliary.labels)
    able = attack.family in TWINS and attack.has_twin and not attack.baseline
    return able and all(value is not None for value in known)


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
        family = FAMILIES[attack.family]
        about = family.name, attack.over_rounds and family.blind_so_far is not None
        if about not in blinds:
            stream = generator(seed, "blind", family.name, latest.client, latest.round)
            guess = family.blind_so_far if attack.over_rounds else None
            guess = guess or family.blind
            blinds[about] = guess(prepared[family.name], static, stream)
        stream = generator(seed, "infer", attack.title, latest.client, latest.round)
        guess, reason, said, start = None, None, [], time.perf_counter()
        known = auxiliary if attack.adaptive else static
        try:
            if family.alone and latest.num_clients > 1:
                raise ValueError(
                    f"num_clients: must be 1 to {family.alone}, got {latest.num_clients}"
                )
            with _remarks() as said:
                guess = family.check(attack.infer(prepared[family.name], known, stream), auxiliary)
        except FedsimError:  # the recording itself is damaged
            raise
        except Exception as error:  # this update defeats this attack; the others go on
            reason = one_line(error)
        seconds = time.perf_counter() - start
        remark = "; ".join(said) or None
        answers.append(Answer(view, attack, guess, blinds[about], seconds, reason, remark))
    return answers


@contextmanager
def _remarks() -> Iterator[list[str]]:
    """Collect the remarks of attacks inside the block; other warnings are passed on."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Remark)
        yield said
    for one in caught:
        if issubclass(one.category, Remark):
            said.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def validity(view: View, attacks: Sequence[Attack], auxiliary: Auxiliary) -> list[Measure]:
    """Return how well several local steps can be read in this round, for attacks on labels."""
    latest = view.latest
    if latest.local.upload == "gradient" or all(attack.family != "label" for attack in attacks):
        return []
    try:
        number = validity_number(workspace(view, auxiliary).derived(undefended))
    except ValueError:  # no linear head: the attacks say so
        return []
    return [Measure(latest.update.round, "server", "validity", number)]


def grade(answer: Answer, truth: Truth | None) -> tuple[list[Leak], Note | None]:
    """Turn one answer into ledger rows, with what there is to say about it."""
    update, family = answer.view.latest.update, FAMILIES[answer.attack.family]
    one = lambda guesses, truths: family.grade(guesses[0], truths[0])
    leaks = _rows([answer], _known([truth]), family.metrics, one, update.client)
    reason = answer.remark if answer.reason is None else answer.reason
    if reason is None and family.remark is not None:
        reason = family.remark(answer.view, truth)
    if reason is None:
        return leaks, None
    return leaks, Note(
        round=update.round,
        client=update.client,
        attack=answer.attack.name,
        adaptive=answer.attack.adaptive,
        reason=reason,
        failed=answer.reason is not None,
    )


def pool(answers: Sequence[Answer], truths: Sequence[Truth | None]) -> list[Leak]:
    """Turn one attack's answers to all clients of a round into the rows pooled over them.

    Clients whose truth is kept and clients for whom the attack had no answer are left out. There
    are no rows where nothing is pooled in the attack's family.
    """
    family = FAMILIES[answers[0].attack.family] if answers else None
    if family is None or family.pool is None:
        return []
    both = zip(answers, truths, strict=True)
    used = [(a, t) for a, t in both if a.guess is not None and _known([t])]
    seconds = sum(answer.seconds for answer in answers)
    asked = [answer for answer, _ in used] or answers[:1]
    rows = _rows(asked, _known([truth for _, truth in used]), family.pooled, family.pool, None)
    return [replace(row, seconds=seconds) for row in rows]


def _rows(
    answers: Sequence[Answer],
    truths: Sequence[Truth],
    metrics: Sequence[str],
    grade: Callable[[Sequence[Any], Sequence[Truth]], Mapping[str, float]],
    client: str | None,
) -> list[Leak]:
    """Return a row per metric; empty where there is no truth."""
    first, attack = answers[0], answers[0].attack

    def graded(guesses: Sequence[Tensor | None]) -> dict[str, float]:
        if not truths or any(guess is None for guess in guesses):
            return {}
        found = grade(guesses, truths)
        return {name: value for name, value in found.items() if not math.isnan(value)}

    values = graded([answer.guess for answer in answers])
    blinds = graded([answer.blind for answer in answers])
    most = FAMILIES[attack.family].ceiling(truths) if truths else {}
    return [
        Leak(
            round=first.view.latest.update.round,
            client=client,
            attack=attack.name,
            adaptive=attack.adaptive,
            family=attack.family,
            metric=metric,
            value=values.get(metric),
            blind=blinds.get(metric),
            seconds=first.seconds,
            ceiling=most.get(metric) if metric in blinds else None,
        )
        for metric in metrics
    ]


def _known(truths: Iterable[Truth | None]) -> list[Truth]:
    return [truth for truth in truths if truth is not None and len(truth.labels)]
