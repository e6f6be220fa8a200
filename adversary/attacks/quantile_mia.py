"""Quantile membership inference: a threshold on the score for every record of its own.

M. Bertran, S. Tang, M. Kearns, J. Morgenstern, A. Roth, Z. S. Wu, "Scalable membership inference
attacks via quantile regression", NeurIPS 2023, algorithm 1.

Idea: a score that is high for this kind of record anyway says little. Records that nobody trained
on are scored against the same update, and the score that a share 1 − FPR of them stays below is
fitted as a function of what the record is like. A candidate is a member where its score is above
its own threshold, and the distance is the new score: it calibrates any score, here the cosine.

*Server must know*: the weights sent, the update, the loss, auxiliary data, and the candidates.
*Exact when*: the conditional quantile is linear in the features, and the auxiliary records are
drawn as the candidates are.
*Differs from the paper*: the paper's regressor is a network on the record itself that is trained
once per model; here a linear one with an intercept per class, the loss and the logarithm of the
gradient's length at the weights sent, fitted for every client and round. Intercepts of classes
change nothing that is graded within classes. Who knows the defense reads the update as tells
rehearsed clients' records best (`adversary.adaptive.readings`).
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.adaptive.readings import asking_as, cosine_reading
from adversary.attack import Attack
from adversary.members.candidates import asking_of_auxiliary, cosines, gradient_norms, losses_before
from adversary.members.references import read
from adversary.members.scores import QUARTILES, groups_of
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View


def quantile_mia(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    fpr: float = 0.1,
) -> Float[Tensor, " m"]:
    """Return by how much each candidate's cosine is above its threshold.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels and candidates.
        generator: Not used: the answer is deterministic.
        fpr: Share of the non-members that are above their threshold, in (0, 1).

    Raises:
        ValueError: The update is not finite, `fpr` is out of range, or a client whose defense is
            known told no number of examples.
    """
    if not 0 < fpr < 1:
        raise NotApplicable(f"fpr: must be in (0, 1), got {fpr}")
    work = workspace(view, auxiliary)
    reading = cosine_reading(work, view.latest)
    asking, upload = asking_as(work, reading), read(view.latest, reading.read)
    others = asking.derived(asking_of_auxiliary)
    score, by_chance = cosines(upload, asking), cosines(upload, others)
    features, of_others = asking.part(_features), others.part(_features)
    return score - quantile(features, of_others, by_chance, 1 - fpr)


def quantile(
    features: Float[Tensor, "m d"],
    others: Float[Tensor, "n d"],
    scores: Float[Tensor, " n"],
    level: float,
) -> Float[Tensor, " m"]:
    """Return the conditional quantile of a score, fitted by the pinball loss.

    Args:
        features: Of the records that it is predicted for.
        others: Of the records it is fitted on.
        scores: Theirs.
        level: Share of them that is to be below, in (0, 1).
    """
    from sklearn.linear_model import QuantileRegressor

    scale = float(scores.abs().max()) or 1.0  # the solver has an absolute tolerance
    model = QuantileRegressor(quantile=level, alpha=0.0, solver="highs", fit_intercept=False)
    model.fit(others.numpy(), (scores / scale).numpy())
    return torch.as_tensor(model.predict(features.numpy())) * scale


def _features(work: Workspace) -> Float[Tensor, "m d"]:
    """Return an intercept for each class, the loss and the log gradient norm of every candidate."""
    candidates = work.auxiliary.candidates
    assert candidates is not None
    loss, norms = losses_before(work), work.part(gradient_norms)
    labels = candidates.labels
    count = work.auxiliary.num_classes if labels.ndim == 1 else len(QUARTILES) + 1
    classes = torch.nn.functional.one_hot(groups_of(labels), count).double()
    tall = torch.stack([loss, (norms + 1e-12).log()], dim=1)
    return torch.cat([classes, tall], dim=1)


ATTACKS = (
    Attack(
        name="quantile-mia",
        family="membership",
        on_device=True,
        infer=quantile_mia,
        needs=("inputs", "labels", "candidates"),
        summary="the cosine above a threshold for each kind of record",
        rehearses=True,
        any_optimizer=True,
    ),
)
