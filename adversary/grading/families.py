"""Families of secrets: the best guess without an update, and how a guess is graded."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.grading import linkage, reconstructions, usage
from adversary.grading.secrets import Secrets, grade_attributes
from adversary.grading.sources import blind_sources, pool_sources
from adversary.labels.counts import expected_overlap, largest_remainder
from adversary.linkage.guess import checked
from adversary.members.imputation import imputed
from adversary.members.scores import within_classes
from adversary.secrets import SECRETS
from adversary.steps import num_labels
from adversary.workspace import workspace
from fedsim.core.form import Kind
from fedsim.core.types import Auxiliary, Truth, View


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of secret.

    Attributes:
        name: As in the ledger.
        metrics: The metrics of `grade`, for rows where no truth is at hand.
        blind: (view, auxiliary, generator) → the best guess without looking at any update.
        grade: (guess, truth) → value per metric; larger is more leakage, NaN is not defined.
        prepare: The view as the attacks of this family are shown it.
        remark: (view, truth) → what a reader of the grades must know, or None.
        pool: (guesses of a round's clients, their truths) → value per metric of `pooled`, for
            what only several clients together show.
        pooled: The metrics of `pool`.
        ceiling: The truths that a row is graded by → the most that any attack could reach, per
            metric; a metric without one is not in it.
        blind_so_far: The best guess about all that a client has used so far, without looking at
            any update, where it is not that about the latest round.
        check: (answer of an attack, auxiliary) → the guess, or a ValueError that says why it can
            be none.
        alone: What can be done to the update of a single client only, and not to a sum.
        of_round: Whether it asks about all uploads of a round together: there is one answer for a
            round, and attacks are shown rounds in which clients have no names.
        kinds: The kinds of models in whose updates the secret stands.
    """

    name: str
    metrics: tuple[str, ...]
    blind: Callable[[View, Auxiliary, Generator], Any]
    grade: Callable[[Any, Truth], dict[str, float]]
    prepare: Callable[[View], View] = lambda view: view
    remark: Callable[[View, Truth | None], str | None] | None = None
    pool: Callable[[Sequence[Any], Sequence[Truth]], dict[str, float]] | None = None
    pooled: tuple[str, ...] = ()
    ceiling: Callable[[Sequence[Truth]], Mapping[str, float]] = lambda _: {}
    blind_so_far: Callable[[View, Auxiliary, Generator], Any] | None = None
    check: Callable[[Any, Auxiliary], Any] = lambda guess, _: guess
    alone: str | None = None
    of_round: bool = False
    kinds: tuple[Kind, ...] = ("values", "tokens")


def per_mille(view: View) -> View:
    """Let a client that told no number of examples have 1,000: its counts are then per mille.

    A gradient is a mean over its batch, whose size does not matter. Uploaded weights are left
    alone: without the number of local steps their scale is not known, and attacks say so.
    """
    latest = view.latest
    if latest.update.num_examples is not None or latest.local.upload == "weights":
        return view
    counted = replace(latest, update=replace(latest.update, num_examples=1000))
    return View([counted], memory=view.memory)


def remark_counts(view: View, truth: Truth | None) -> str | None:
    """Say where counts are proportions."""
    if view.latest.update.num_examples is None:
        return "num_examples: not told, so the answer is proportions (per mille)"
    count = num_labels(view.latest)
    if truth is not None and count != len(truth.labels):
        used = len(truth.labels)
        return f"num_examples: told {count} labels but used {used}, so graded as proportions"
    return None


def blind_counts(view: View, auxiliary: Auxiliary, generator: Generator) -> Int[Tensor, " classes"]:
    """Spread the known number of labels like the auxiliary labels, or evenly without any."""
    classes = auxiliary.num_classes
    if auxiliary.labels is None:
        share = torch.full((classes,), 1 / classes, dtype=torch.float64)
    else:
        share = torch.bincount(auxiliary.labels, minlength=classes).double()
        share /= share.sum()
    order = torch.randperm(classes, generator=generator)
    counted = view.latest.update.num_examples is not None
    return largest_remainder(share, num_labels(view.latest) if counted else 1000, order)


def grade_counts(guess: Tensor, truth: Truth) -> dict[str, float]:
    """Grade label counts, or proportions where the number of labels was not known.

    Args:
        guess: Shape (classes,), not negative. Where it does not add up to the true number of
            labels N, both are compared as proportions, so that naming more labels buys nothing.
        truth: The labels used.

    Returns:
        `asr`: attack success rate of the label papers, Σ_i min(n̂_i, n_i) / N, order ignored. It
        equals 1 − Σ_i |n̂_i − n_i| / 2N, so that error has no column of its own.
        `skill`: (asr − chance) / (1 − chance), where chance is the expected ASR of labels drawn
        evenly at random; 0 where chance is 1.
        `exact`: 1 where all counts are right.
        `precision`, `recall`: of the classes named present.
    """
    true = torch.bincount(truth.labels, minlength=len(guess))
    total = len(truth.labels)
    comparable = not guess.is_floating_point() and int(guess.sum()) == total
    share = guess.double() / guess.sum()
    asr = float(torch.minimum(share, true / total).sum())
    if comparable:  # in whole numbers, so that 1 is 1
        asr = float(torch.minimum(guess, true).sum()) / total
    chance = float(expected_overlap(total, len(guess))[true].sum()) / total
    named, present = guess > 0, true > 0
    correct = float((named & present).sum())
    return {
        "asr": asr,
        "skill": (asr - chance) / (1 - chance) if chance < 1 else 0.0,
        "exact": float(comparable and torch.equal(guess, true)),
        "precision": correct / float(named.sum()),
        "recall": correct / float(present.sum()),
    }


def blind_members(
    view: View,  # noqa: ARG001
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " m"]:
    """Score every candidate alike: within a class, nothing but the update tells them apart."""
    candidates = auxiliary.candidates
    return torch.zeros(0 if candidates is None else len(candidates.labels), dtype=torch.float64)


def grade_members(guess: Tensor, truth: Truth) -> dict[str, float]:
    """Grade scores of membership within classes, so that knowing a client's labels buys nothing.

    Args:
        guess: A real score per candidate, higher for a member, shape (m,).
        truth: With members and classes.

    Returns:
        `auroc` and `advantage`, as `adversary.members.scores.within_classes`.
    """
    if truth.members is None or truth.classes is None:
        return {"auroc": math.nan, "advantage": math.nan}
    return within_classes(guess, truth.members, truth.classes)


def blind_ranges(
    view: View,  # noqa: ARG001
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " m"]:
    """Score every range alike."""
    ranges = auxiliary.ranges
    return torch.zeros(0 if ranges is None else len(ranges.labels), dtype=torch.float64)


def grade_ranges(guess: Tensor, truth: Truth) -> dict[str, float]:
    """Grade whether ranges with an example that the client used score above others of the class.

    Args:
        guess: A real score per range, higher where it holds an example used, shape (m,).
        truth: With ranges and their classes.

    Returns:
        `auroc` and `advantage`, as for membership.
    """
    if truth.ranges is None or truth.range_classes is None:
        return {"auroc": math.nan, "advantage": math.nan}
    return within_classes(guess, truth.ranges, truth.range_classes)


def grade_sources(guess: Tensor, truth: Truth) -> dict[str, float]:
    """Grade whether this client's candidates score above other clients' of the same class.

    Args:
        guess: A score per candidate, higher where this client is a likelier source, shape (m,).
        truth: With members, classes and users.

    Returns:
        `auroc`: as for membership, among the candidates that exactly one client of the round used.
    """
    if truth.members is None or truth.classes is None or truth.users is None:
        return {"auroc": math.nan}
    unique = truth.users == 1
    among = replace(truth, members=truth.members[unique], classes=truth.classes[unique])
    return {"auroc": grade_members(guess[unique], among)["auroc"]}


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="label",
            metrics=("asr", "skill", "exact", "precision", "recall"),
            blind=blind_counts,
            grade=grade_counts,
            prepare=per_mille,
            remark=remark_counts,
            ceiling=lambda _: dict.fromkeys(("asr", "skill", "exact", "precision", "recall"), 1.0),
        ),
        Family(
            name="membership",
            metrics=("auroc", "advantage"),
            blind=blind_members,
            grade=grade_members,
            ceiling=lambda _: {"auroc": 1.0, "advantage": 1.0},
            kinds=("values", "tokens", "language"),
        ),
        Family(
            name="range",
            metrics=("auroc", "advantage"),
            blind=blind_ranges,
            grade=grade_ranges,
            ceiling=lambda _: {"auroc": 1.0, "advantage": 1.0},
            kinds=("values",),
        ),
        Family(
            name="usage",
            metrics=usage.METRICS,
            blind=usage.blind,
            grade=usage.grade,
            pool=usage.pool,
            pooled=usage.POOLED,
            ceiling=lambda _: dict.fromkeys(usage.METRICS, 1.0),
            alone="count the records of its set",
        ),
        Family(
            name="source",
            metrics=("auroc",),
            blind=blind_sources,
            grade=grade_sources,
            prepare=per_mille,
            pool=pool_sources,
            pooled=("accuracy", "label_accuracy"),
            ceiling=lambda _: {"auroc": 1.0, "accuracy": 1.0},
            alone="tell one client's records from another's",
        ),
        Family(
            name="linkage",
            metrics=linkage.METRICS,
            blind=linkage.blind,
            grade=linkage.grade,
            ceiling=lambda _: dict.fromkeys(linkage.METRICS, 1.0),
            check=lambda guess, _: checked(guess),
            alone="tell whose upload it is",
            of_round=True,
        ),
        Family(
            name="attribute",
            metrics=("auroc", "accuracy"),
            blind=lambda view, auxiliary, _: workspace(view, auxiliary).lasting(imputed),
            grade=grade_attributes,
            ceiling=lambda _: {"auroc": 1.0, "accuracy": 1.0},
            alone="weigh a record by rehearsed clients",
        ),
        *(
            Family(
                name=name,
                metrics=("accuracy", "bits"),
                blind=secrets.blind,
                grade=secrets.grade,
                pool=secrets.pool,
                pooled=("auroc",),
                ceiling=secrets.ceiling,
                blind_so_far=secrets.blind_so_far,
                alone="compare it with rehearsed clients",
            )
            for name in SECRETS
            for secrets in (Secrets(name),)
        ),
        Family(
            name="reconstruction",
            metrics=reconstructions.METRICS,
            blind=reconstructions.blind,
            grade=reconstructions.grade,
            pool=reconstructions.pool,
            pooled=reconstructions.METRICS,
            ceiling=reconstructions.ceiling,
            check=reconstructions.checked,
            alone="reconstruct examples",
            kinds=("values",),
        ),
    )
}
