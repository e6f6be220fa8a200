"""Update-LiRA: the likelihood ratio of an update's cosine with and without a record.

N. Carlini, S. Chien, M. Nasr, S. Song, A. Terzis, F. Tramèr, "Membership inference attacks from
first principles", S&P 2022, the offline attack.

Idea: what a record scores where nobody trained on it depends on the record. Here the shadow model
is one client's local update of the round, which costs little: each shadow client is rehearsed on
auxiliary data and scored against every candidate, for log N(s; in) − log N(s; out).

*Server must know*: the weights sent, the update, the number of examples, the protocol, auxiliary
data, and the candidate records.
*Exact when*: scores are Gaussian, and all records gain as much, in their own standard deviations.
*Differs from the paper*: no shadow client is ever trained on a candidate, for that would be a
training per candidate. Mean and variance without the record are the candidate's own, over all
shadow clients of the round and size; with it, the mean is higher by what the shadow clients' own
examples gain over others of their class, in standard deviations, pooled, and the variance is the
same (with two variances, the ratio would rise again for the lowest scores). The score is the
cosine, not the logit of the confidence, which a gradient does not change. One round is judged by
itself. Who knows the defense may send candidates through it (`adversary.adaptive.pulled_back`,
`adversary.members.in_training`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from adversary.adaptive.corrections import Correct, corrected
from adversary.adaptive.pulled_back import pulled_back
from adversary.attack import Attack
from adversary.members.candidates import cosines, trained_names
from adversary.members.in_training import takes_part
from adversary.members.scores import groups_of, moments
from adversary.members.shadows import Shadows, shadow_size, shadows, shown
from adversary.workspace import Workspace, undefended, workspace
from fedsim.core.types import Auxiliary, Observation, View

HELPS = 0.2  # standard deviations that members must gain for another reading of the upload


def update_lira(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " m"]:
    """Return log N(s; in) − log N(s; out) for every candidate.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels and candidates; clients are rehearsed with its defense.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The update is not finite, or the client told no number of examples.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    model = work.part(_fitted, shadow_size(latest))
    score = cosines(_read(latest, model.correct, work), model.asking)
    return model.gain * ((score - model.mean) / model.deviation - model.gain / 2)


@dataclass(frozen=True, eq=False)
class _Scores:
    """How candidates score.

    Attributes:
        mean: Without the candidate, shape (m,).
        deviation: Standard deviation, without it and with it, shape (m,).
        gain: How many standard deviations higher the mean is with it; never negative.
        correct: How the upload is read: with the hypotheses through the defense, where that gains.
        asking: Where candidates' gradients are taken: through a defense inside training likewise.
    """

    mean: Float[Tensor, " m"]
    deviation: Float[Tensor, " m"]
    gain: float
    correct: Correct
    asking: Workspace


def _fitted(work: Workspace, size: int) -> _Scores:
    """Return the scores under the reading of uploads in which members gain most."""
    rehearsed, readings = shadows(work, size), {"none": lambda parts: parts}
    uploads = [shown(shadow, work) for shadow in rehearsed.clients]
    if work.auxiliary.defense is not None:
        plain = [shadow.observation for shadow in rehearsed.clients]
        readings |= pulled_back(plain, uploads, work.auxiliary)
    asking = [work.derived(undefended), *([work] if takes_part(work.auxiliary) else [])]
    fits = [
        _scores(ask, rehearsed, uploads, correct) for ask in asking for correct in readings.values()
    ]
    best = max(fits, key=lambda fit: fit.gain)
    return best if best.gain > fits[0].gain + HELPS else fits[0]


def _scores(
    work: Workspace, rehearsed: Shadows, given: Sequence[Observation], correct: Correct
) -> _Scores:
    """Score candidates, and the records that stand in for members, under all shadow clients."""
    uploads = [_read(upload, correct, work) for upload in given]
    asking = work.knowing(work.part(_of_pool, rehearsed, keep=4))
    others = asking.auxiliary.candidates
    assert others is not None
    out = torch.stack([cosines(observation, work) for observation in uploads])
    pool = torch.stack([cosines(observation, asking) for observation in uploads])
    members = torch.stack([shadow.members for shadow in rehearsed.clients])
    gain = _gain(pool, members, groups_of(others.labels))
    return _Scores(*moments(out, torch.ones_like(out, dtype=torch.bool)), gain, correct, work)


def _of_pool(work: Workspace, rehearsed: Shadows) -> Auxiliary:
    """Return the same adversary, asking about the records that shadow clients are drawn from."""
    return replace(work.auxiliary, candidates=rehearsed.auxiliary.candidates)


def _read(upload: Observation, correct: Correct, work: Workspace) -> Observation:
    return corrected(upload, trained_names(work.auxiliary), correct, work.memory).latest


def _gain(
    scores: Float[Tensor, "clients m"],
    members: Bool[Tensor, "clients m"],
    labels: Int[Tensor, " m"],
) -> float:
    """Return how many standard deviations a client's examples score above others of their class."""
    mean, deviation = moments(scores, ~members)
    z = (scores - mean) / deviation
    classes = torch.nn.functional.one_hot(labels).to(z.dtype)
    inside, outside = members.to(z.dtype) @ classes, (~members).to(z.dtype) @ classes
    level = ((z * ~members) @ classes) / outside.clamp(min=1)
    gains, used = ((z * members) @ classes) - inside * level, inside * (outside > 0)
    return max(0.0, float((gains * (outside > 0)).sum() / used.sum().clamp(min=1)))


ATTACKS = (
    Attack(
        name="update-lira",
        family="membership",
        on_device=True,
        infer=update_lira,
        needs=("inputs", "labels", "candidates"),
        summary="likelihood ratio of the cosine, from rehearsed clients",
        rehearses=True,
        any_optimizer=True,
    ),
    Attack(
        name="update-lira-rounds",
        family="membership",
        on_device=True,
        infer=update_lira,
        needs=("inputs", "labels", "candidates"),
        summary="update-lira, its mean over the rounds so far",
        rehearses=True,
        any_optimizer=True,
        over_rounds=True,
    ),
)
