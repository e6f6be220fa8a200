"""How uploads are read before records are asked about, by an adversary that knows the defense.

In place of sending every record through the defense, the upload is led back (`corrections`,
`pulled_back`), and those of rehearsed clients with it. None is the upload as it is.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from adversary.adaptive.corrections import Correct, corrected
from adversary.adaptive.members import Choice, best_of, chosen, rehearsed
from adversary.members.calibration import Score
from adversary.members.candidates import cosines, trained_names
from adversary.members.references import Read, mean_likelihood, under
from adversary.members.scores import within_classes
from adversary.members.shadows import shadow_size
from adversary.workspace import Workspace, undefended, workspace
from fedsim.core.types import Auxiliary, Observation, View


def likelihood_reading(work: Workspace, size: int) -> Read | None:
    """Return how an upload is read before records are asked about under the model that it makes.

    The correction with which likelihood ratios tell the records of rehearsed clients best, each
    compared with the others; None for the upload as it is, and for an adversary that does not know
    of a defense.
    """
    if work.auxiliary.defense is None:
        return None
    rehearsal = work.part(rehearsed, size, keep=4)
    members, asking = torch.stack([*rehearsal.members]), rehearsal.auxiliary
    assert asking.candidates is not None
    aurocs: dict[Choice, Tensor] = {}
    for name, correct in rehearsal.placed.items():
        uploads = [_corrected(work, correct, upload) for upload in rehearsal.clients]
        values, each = under(uploads, asking), []
        for place, value in enumerate(values):
            others = ~members
            others[place] = False
            score = value - mean_likelihood(values, others)
            each.append(within_classes(score, members[place], asking.candidates.labels)["auroc"])
        aurocs[Choice(name, in_training=False)] = torch.tensor(each)
    name = best_of(aurocs).correction
    return None if name == "none" else partial(_corrected, work, rehearsal.placed[name])


class Reading(NamedTuple):
    """How an upload and records are compared.

    Attributes:
        read: How an upload is read; None as it is.
        in_training: Whether gradients are taken through a defense inside training.
    """

    read: Read | None
    in_training: bool


AS_IT_IS = Reading(None, in_training=False)


def cosine_reading(work: Workspace, observation: Observation) -> Reading:
    """Return how cosines are taken, so that they tell the records of rehearsed clients best.

    As they are for an adversary that does not know of a defense.

    Args:
        work: With candidates; with a defense, also inputs and labels.
        observation: Of the client, whose number of examples counts where there is a defense.

    Raises:
        ValueError: A client whose defense is known told no number of examples.
    """
    if work.auxiliary.defense is None:
        return AS_IT_IS
    return work.part(_cosine_reading, shadow_size(observation))


def asking_as(work: Workspace, reading: Reading) -> Workspace:
    """Return where candidates' gradients are taken as a reading says."""
    return work if reading.in_training else work.derived(undefended)


def _cosine_reading(work: Workspace, size: int) -> Reading:
    choice = work.part(chosen, size, _cosines)
    correct = work.part(rehearsed, size, keep=4).corrections[choice.correction]
    none = choice.correction == "none"
    return Reading(None if none else partial(_corrected, work, correct), choice.in_training)


def usage_reading(work: Workspace, size: int, score: Score) -> Reading:
    """Return how an upload is read before a score of membership is taken."""
    if score == "cosine":
        return AS_IT_IS if work.auxiliary.defense is None else work.part(_cosine_reading, size)
    return Reading(work.part(likelihood_reading, size), in_training=False)


def _cosines(view: View, auxiliary: Auxiliary, generator: Generator) -> Tensor:  # noqa: ARG001
    return cosines(view.latest, workspace(view, auxiliary))


def _corrected(work: Workspace, correct: Correct, observation: Observation) -> Observation:
    return corrected(observation, trained_names(work.auxiliary), correct, work.memory).latest
