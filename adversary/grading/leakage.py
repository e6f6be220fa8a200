"""Leakage: the answers of attacks, graded by the truth, as rows of the ledger."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from adversary.grading.answers import Answer
from adversary.grading.families import FAMILIES
from fedsim.core.ground_truth import Truth
from fedsim.core.rows import Leak, Note, NoteKind, Outcome

Values = Mapping[str, float]


class Grades:
    """The rows of a round's answers, in their order; where a family can, graded all at once."""

    def __init__(self) -> None:
        self._rows: list[tuple[list[Leak], Note | None]] = []
        self._waiting: dict[str, list[tuple[int, Answer, Truth]]] = {}

    def add(self, answer: Answer, truth: Truth | None) -> None:
        """Grade an answer now or later."""
        usable = _usable([truth])
        if FAMILIES[answer.attack.family].grade_all and usable and answer.guess is not None:
            place = len(self._rows), answer, usable[0]
            self._waiting.setdefault(answer.attack.family, []).append(place)
            self._rows.append(([], None))
        else:
            self._rows.append(grade(answer, truth))

    def __len__(self) -> int:
        return len(self._rows)

    def results(self) -> list[tuple[list[Leak], Note | None]]:
        """Return the ledger rows of each answer, and what there is to say about it."""
        for family, waiting in self._waiting.items():
            grade_all = FAMILIES[family].grade_all
            assert grade_all is not None
            places, answers, truths = zip(*waiting, strict=True)
            values = grade_all([answer.guess for answer in answers], truths)
            blinds = grade_all([answer.blind for answer in answers], truths)
            for number, place in enumerate(places):
                graded = values[number], blinds[number]
                self._rows[place] = _graded(answers[number], truths[number], *graded)
        self._waiting.clear()
        return self._rows


def grade(answer: Answer, truth: Truth | None) -> tuple[list[Leak], Note | None]:
    """Turn one answer into ledger rows, with what there is to say about it."""
    family, usable = FAMILIES[answer.attack.family], _usable([truth])
    alone = lambda guesses, truths: family.grade(guesses[0], truths[0])
    values, blinds = _values([answer], usable, alone)
    return _graded(answer, truth, values, blinds)


def _graded(
    answer: Answer, truth: Truth | None, values: Values, blinds: Values
) -> tuple[list[Leak], Note | None]:
    """Return the rows of an answer, and the note on it.

    Args:
        answer: The answer.
        truth: That of the client; None where it is kept.
        values: Metric → its grade.
        blinds: Metric → the grade of the blind guess.
    """
    update, family = answer.view.latest.update, FAMILIES[answer.attack.family]
    client = None if family.of_round else update.client
    leaks = _rows([answer], _usable([truth]), family.metrics, (values, blinds), client)
    leaks += _of_uncertainty(answer, _usable([truth]), leaks[0])
    reason = answer.remark if answer.reason is None else answer.reason
    if reason is None and family.remark is not None:
        reason = family.remark(answer.view, truth)
    if reason is None:
        return leaks, None
    return leaks, Note(
        round=update.round,
        client=client,
        attack=answer.attack.name,
        adaptive=answer.attack.adaptive,
        reason=reason,
        kind=_kind(answer),
    )


def pool(answers: Sequence[Answer], truths: Sequence[Truth | None]) -> list[Leak]:
    """Turn one attack's answers to all clients of a round into the rows pooled over them.

    Clients whose truth is kept and clients for whom the attack had no answer are left out. There
    are no rows where nothing is pooled in the attack's family.
    """
    family = FAMILIES[answers[0].attack.family] if answers else None
    if family is None or family.pool is None:
        return []
    pairs = zip(answers, truths, strict=True)
    used = [(a, t) for a, t in pairs if a.guess is not None and _usable([t])]
    seconds = sum(answer.seconds for answer in answers)
    pooled = [answer for answer, _ in used] or answers
    truths = _usable([truth for _, truth in used])
    rows = _rows(pooled, truths, family.pooled, _values(pooled, truths, family.pool), None)
    part = None
    if len(used) < len(answers):
        part = f"pooled over {len(used)} of {len(answers)} clients"
    return [
        replace(row, seconds=seconds, reason=part if row.outcome == "graded" else row.reason)
        for row in rows
    ]


def _of_uncertainty(answer: Answer, truths: Sequence[Truth], like: Leak) -> list[Leak]:
    """Return rows on how well an answer says where it is right, where it says so at all."""
    grade = FAMILIES[answer.attack.family].grade_uncertainty
    if grade is None or answer.guess is None or answer.uncertainty is None or not truths:
        return []
    values = grade(answer.guess, answer.uncertainty, truths[0])
    return [
        replace(like, metric=metric, value=value, outcome="graded", blind=blind, ceiling=1.0)
        for metric, (value, blind) in values.items()
        if not math.isnan(value)
    ]


def _kind(answer: Answer) -> NoteKind:
    """Return what a note on an answer is."""
    if answer.refused:
        return "refused"
    return "note" if answer.reason is None else "failed"


def _rows(
    answers: Sequence[Answer],
    truths: Sequence[Truth],
    metrics: Sequence[str],
    graded: tuple[Values, Values],
    client: str | None,
) -> list[Leak]:
    """Return a row per metric.

    Args:
        answers: What they are about.
        truths: Graded against; without any, no row has a value.
        metrics: Of the rows.
        graded: The grades of the answers, and of the blind guesses.
        client: Whose; None for several.
    """
    first, attack = answers[0], answers[0].attack
    family = FAMILIES[attack.family]
    values, blinds = (_defined(each) for each in graded)
    most = family.ceiling(truths) if truths else {}
    outcome, reason = _outcome(answers, truths)
    return [
        Leak(
            round=first.view.latest.update.round,
            client=client,
            attack=attack.name,
            adaptive=attack.adaptive,
            family=attack.family,
            metric=metric,
            value=values.get(metric),
            outcome="undefined" if outcome == "graded" and metric not in values else outcome,
            reason=reason,
            blind=blinds.get(metric),
            seconds=first.seconds,
            ceiling=most.get(metric) if metric in blinds else None,
        )
        for metric in (*metrics, *(it for it in family.optional + family.secondary if it in blinds))
    ]


def _outcome(answers: Sequence[Answer], truths: Sequence[Truth]) -> tuple[Outcome, str | None]:
    """Return what became of answers that one row is about, and the usual reason of failures."""
    if any(answer.guess is not None for answer in answers):
        return ("graded" if truths else "no truth"), None
    reasons = Counter(answer.reason for answer in answers)
    refused = all(answer.refused for answer in answers)
    return ("refused" if refused else "failed"), reasons.most_common(1)[0][0]


def _values(
    answers: Sequence[Answer],
    truths: Sequence[Truth],
    grade: Callable[[Sequence[Any], Sequence[Truth]], Values],
) -> tuple[Values, Values]:
    """Return the grades of answers and of their blind guesses; none without truth or a guess."""
    guesses = [answer.guess for answer in answers]
    if not truths:
        return {}, {}
    values = {} if any(guess is None for guess in guesses) else grade(guesses, truths)
    grade_blind = FAMILIES[answers[0].attack.family].grade_blind or grade
    return values, grade_blind([answer.blind for answer in answers], truths)


def _defined(values: Values) -> dict[str, float]:
    """Return the value of each metric that is defined."""
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _usable(truths: Iterable[Truth | None]) -> list[Truth]:
    present = (truth for truth in truths if truth is not None)
    return [it for it in present if it.labels.shape[0] or it.uploaders is not None]
