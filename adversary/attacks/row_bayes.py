"""Row-Bayes: how often each token of the vocabulary is a target, row by row of the head.

fedsim's own, after EB-GLS, whose one covariance over all classes does not fit a vocabulary.

Idea: given how often a token is a target, its row of the head's gradient is normal, with moments
from auxiliary text; counts are added one by one where they gain most. Tokens outside of the set of
`token-rows` are ruled out, but for the ends of texts. The number of targets is not uploaded: it is
the one under which rows look most like whole numbers of targets. The noise of a defense is read off
the column sums, which are zero without it. Over several local steps features drift: by how much is
read off the rows themselves, and where they are far from the moments of the model sent, so many
texts have the usual number of targets, and where very far, half of the answer is the set by
auxiliary frequency. Who knows the defense learns counts from rehearsed clients
(`adversary.text.learned`), where that counts theirs better.
*Server must know*: the model, auxiliary text, and the number of texts.
*Exact when*: never for sure.
*Differs from the paper*: there is none.
"""

import dataclasses

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.labels.counts import largest_remainder, round_counts
from adversary.steps import num_labels, num_steps
from adversary.text.learned import better_counts
from adversary.text.moments import Moments
from adversary.text.reading import (
    HEAD,
    auxiliary_texts,
    evidence,
    target_moments,
    token_set,
    vocabulary_of,
)
from adversary.text.row_bayes import (
    NEAR,
    WIDE,
    Evidence,
    candidates,
    counts,
    drifted,
)
from adversary.text.signs import only_signs
from adversary.text.tables import find_tables, table
from adversary.text.total import likeliest_total
from adversary.workspace import Workspace, undefended, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.form import IGNORED
from fedsim.core.types import Auxiliary, Observation, View

MISFIT = 10.0  # beyond it the moments are of another model: half of the answer is by frequency
UNSETTLED = 2.0  # misfit beyond which rows do not tell the number of targets
SURE = 6.0  # standard errors of a slope that is more than noise
FAR = 2.0  # times the size of a mean over targets, or one part in so many: scaled


def row_bayes(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Int[Tensor, " vocabulary"]:
    """Return how often each token is a target, over all local epochs.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With texts; the model's current weights mean nothing.
        generator: Not used.

    Raises:
        ValueError: The head was frozen or is tied, or the client told no number of texts.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    if auxiliary.defense is None:
        return counted(latest, work)
    better = better_counts(latest, work, counted)
    if better is None:
        return counted(latest, work.derived(undefended))
    return latest.local.epochs * better


def counted(latest: Observation, work: Workspace) -> Int[Tensor, " vocabulary"]:
    """Return the answer of who knows of no defense, computed once for all attacks that ask."""
    # The result holds the observation, so that no other takes its id.
    compute = lambda: (latest, _counted(latest, work))
    return work.memory.get(row_bayes, (work, id(latest)), compute, keep=1)[1].clone()


def _counted(latest: Observation, work: Workspace) -> Int[Tensor, " vocabulary"]:
    epochs, auxiliary = latest.local.epochs, work.auxiliary
    head = table(latest.update.delta, find_tables(work).head, HEAD)  # classifiers have none
    expected, deviation = expected_total(latest, auxiliary)
    if only_signs(head):
        return epochs * _by_frequency(latest, work, round(expected))
    moments = work.part(target_moments)
    observed = unscaled(moments, evidence(latest, work))
    rows = candidates(moments, observed, round(expected))
    moments, observed = moments.at(rows), observed.at(rows)
    misfit, near = None, NEAR
    if num_steps(latest) > 1:
        near = WIDE
        best = counts(moments, observed, round(expected), near=near)
        misfit, moments = best.misfit, drifted(moments, observed, best, round(expected))
    if misfit is not None and misfit > UNSETTLED:
        total = round(expected)
    else:
        total = likeliest_total(moments, observed, expected, deviation)
    best = counts(moments, observed, total, near=near)
    each = torch.zeros(len(vocabulary_of(auxiliary)), dtype=torch.int64)
    each[rows] = best.each
    if (best.misfit if misfit is None else misfit) <= MISFIT and each.any():
        return epochs * each
    total = max(int(each.sum()), 1)
    frequent = _by_frequency(latest, work, total)
    return epochs * round_counts((each + frequent) / 2, total)


def expected_total(observation: Observation, auxiliary: Auxiliary) -> tuple[float, float]:
    """Return mean and standard deviation of the number of targets of so many texts."""
    texts = num_labels(observation) / observation.local.epochs
    lengths = (auxiliary_texts(auxiliary)[1] != IGNORED).sum(dim=1).double()
    return texts * float(lengths.mean()), max(1.0, texts**0.5 * float(lengths.std(correction=0)))


def unscaled(moments: Moments, observed: Evidence) -> Evidence:
    """Return what an update says, brought back to the size of a mean over targets.

    Rows of tokens that are no target are known but for the scale of the update. A clip, or another
    scale, shows as a slope far from 1.
    """
    if observed.present is None or observed.present.all():
        return observed
    named, gradient = observed.present, observed.gradient
    few = moments.mean[named]
    squared = moments.size - float(few.square().sum())
    along = torch.dot(gradient.flatten(), moments.mean.flatten())
    slope = float(along - (gradient[named] * few).sum()) / squared
    error = (observed.noise / squared) ** 0.5
    if slope <= SURE * error or 1 / FAR <= slope <= FAR:
        return observed
    return dataclasses.replace(
        observed, gradient=observed.gradient / slope, noise=observed.noise / slope**2
    )


def _by_frequency(
    observation: Observation, work: Workspace, total: int
) -> Int[Tensor, " vocabulary"]:
    """Return each token of the set once, and the rest by their auxiliary frequency."""
    try:
        present = token_set(observation, work)
    except NotApplicable:  # the token table is frozen
        present = torch.ones(len(vocabulary_of(work.auxiliary)), dtype=torch.bool)
    present[vocabulary_of(work.auxiliary).eos] = True
    rest = total - int(present.sum())
    share = work.part(target_moments).rates * present
    if rest < 0:  # every token is named
        return round_counts(share, total)
    order = share.argsort(descending=True, stable=True)
    return present.long() + largest_remainder(share / share.sum(), rest, order)


ATTACK = Attack(
    name="row-bayes",
    family="label",
    infer=row_bayes,
    needs=("vocabulary", "inputs", "labels"),
    summary="how often each token is a target, row by row of the head",
    kinds=("language",),
    reads="rehearsed texts",
    rehearses=True,
)
