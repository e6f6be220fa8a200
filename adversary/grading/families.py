"""Families of secrets: the best guess without an update, and how a guess is graded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Generator, Tensor

from adversary.grading import (
    counts,
    exposures,
    linkage,
    membership,
    reconstructions,
    records,
    texts,
    tokens,
    uncertainty,
    usage,
)
from adversary.grading.secrets import Secrets, grade_attributes
from adversary.grading.sources import blind_sources, grade_sources, pool_sources
from adversary.linkage.guess import checked
from adversary.members.imputation import imputed
from adversary.secrets import SECRETS
from adversary.workspace import workspace
from fedsim.core.form import Kind
from fedsim.core.ground_truth import Truth
from fedsim.core.types import Auxiliary, View


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of secret.

    Attributes:
        name: As in the ledger.
        metrics: The metrics of `grade`, for rows where no truth is at hand.
        optional: Further metrics of `grade` and `pool`, which some data alone define: there is no
            row where they are not.
        secondary: Those that are never the headline, of `of_uncertainty` too; a console leaves
            them out.
        blind: (view, auxiliary, generator) → the best guess without looking at any update.
        blind_all: (views, auxiliary, generators) → for each what `blind` returns, to the bit; None
            where guesses are made one by one.
        grade: (guess, truth) → value per metric; larger is more leakage, NaN is not defined.
        grade_all: (guesses, truths) → for each what `grade` returns, to the bit; None where guesses
            are graded one by one.
        prepare: The view as the attacks of this family are shown it.
        remark: (view, truth) → what a reader of the grades must know, or None.
        grade_blind: (blind guesses of some clients, their truths) → value per metric, where blind
            guesses are graded in another way than answers.
        grade_uncertainty: (guess, its uncertainty, truth) → value and chance per metric of
            `of_uncertainty`, for attacks that say how sure they are.
        of_uncertainty: The metrics of `grade_uncertainty`.
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
    blind_all: Callable[[Sequence[View], Auxiliary, Sequence[Generator]], Tensor] | None = None
    grade_all: Callable[[Sequence[Any], Sequence[Truth]], list[dict[str, float]]] | None = None
    prepare: Callable[[View], View] = lambda view: view
    remark: Callable[[View, Truth | None], str | None] | None = None
    optional: tuple[str, ...] = ()
    secondary: tuple[str, ...] = ()
    grade_blind: Callable[[Sequence[Any], Sequence[Truth]], dict[str, float]] | None = None
    grade_uncertainty: (
        Callable[[Tensor, Tensor, Truth], Mapping[str, tuple[float, float]]] | None
    ) = None
    of_uncertainty: tuple[str, ...] = ()
    pool: Callable[[Sequence[Any], Sequence[Truth]], dict[str, float]] | None = None
    pooled: tuple[str, ...] = ()
    ceiling: Callable[[Sequence[Truth]], Mapping[str, float]] = lambda _: {}
    blind_so_far: Callable[[View, Auxiliary, Generator], Any] | None = None
    check: Callable[[Any, Auxiliary], Any] = lambda guess, _: guess
    alone: str | None = None
    of_round: bool = False
    kinds: tuple[Kind, ...] = ("values", "tokens")

    @property
    def ranked(self) -> tuple[str, ...]:
        """All metrics; the first of those that an attack was graded by is its headline."""
        headlines = *self.optional, *self.metrics, *self.pooled
        return tuple(dict.fromkeys((*headlines, *self.secondary, *self.of_uncertainty)))


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="label",
            metrics=counts.METRICS,
            blind=counts.blind,
            blind_all=counts.blind_all,
            grade=counts.grade,
            grade_all=counts.grade_all,
            prepare=counts.per_mille,
            remark=counts.remark,
            ceiling=lambda _: dict.fromkeys(counts.METRICS, 1.0),
        ),
        Family(
            name="membership",
            metrics=("auroc", "advantage"),
            blind=membership.blind_members,
            grade=membership.grade_members,
            ceiling=lambda _: {"auroc": 1.0, "advantage": 1.0},
            kinds=("values", "tokens", "language"),
        ),
        Family(
            name="range",
            metrics=("auroc", "advantage"),
            blind=membership.blind_ranges,
            grade=membership.grade_ranges,
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
            prepare=counts.per_mille,
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
            kinds=("values", "tokens", "language"),
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
            optional=records.METRICS,
            secondary=(*reconstructions.OF_IMAGES, uncertainty.CORRELATION),
            grade_blind=reconstructions.pool_blind,
            grade_uncertainty=uncertainty.grade,
            of_uncertainty=uncertainty.METRICS,
            blind=reconstructions.blind,
            grade=reconstructions.grade,
            pool=reconstructions.pool,
            pooled=reconstructions.METRICS,
            ceiling=reconstructions.ceiling,
            check=reconstructions.checked,
            alone="reconstruct examples",
            kinds=("values",),
        ),
        Family(
            name="text",
            metrics=texts.METRICS,
            blind=texts.blind,
            grade=texts.grade,
            ceiling=lambda _: dict.fromkeys(texts.METRICS, 1.0),
            check=texts.checked,
            alone="recover texts",
            kinds=("tokens", "language"),
        ),
        Family(
            name="tokens",
            metrics=tokens.METRICS,
            blind=tokens.blind,
            grade=tokens.grade,
            ceiling=lambda _: dict.fromkeys(tokens.METRICS, 1.0),
            check=tokens.checked,
            kinds=("tokens", "language"),
        ),
        Family(
            name="exposure",
            metrics=exposures.METRICS,
            blind=exposures.blind,
            grade=exposures.grade,
            ceiling=exposures.ceiling,
            alone="tell whose canary it is",
            kinds=("language",),
        ),
    )
}
