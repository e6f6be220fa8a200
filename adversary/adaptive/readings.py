"""How uploads are read before records are asked about, by an adversary that knows the defense.

In place of sending every record through the defense, the upload is led back (`corrections`,
`pulled_back`), and those of rehearsed clients with it. None is the upload as it is.
"""

from functools import partial

import torch
from torch import Generator, Tensor

from adversary.adaptive.corrections import Correct, corrected
from adversary.adaptive.members import best_of, chosen, rehearsed
from adversary.members.calibration import Score
from adversary.members.candidates import cosines, trained_names
from adversary.members.references import Read, mean_likelihood, under
from adversary.members.scores import within_classes
from adversary.workspace import Workspace, workspace
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
    aurocs = {}
    for name, correct in rehearsal.placed.items():
        uploads = [_corrected(work, correct, upload) for upload in rehearsal.clients]
        values, each = under(uploads, asking), []
        for place, value in enumerate(values):
            others = ~members
            others[place] = False
            score = value - mean_likelihood(values, others)
            each.append(within_classes(score, members[place], asking.candidates.labels)["auroc"])
        aurocs[name] = torch.tensor(each)
    name = best_of(aurocs)
    return None if name == "none" else partial(_corrected, work, rehearsal.placed[name])


def usage_reading(work: Workspace, size: int, score: Score) -> Read | None:
    """Return how an upload is read before its score of membership is taken."""
    if score == "rmia" or work.auxiliary.defense is None:
        return work.part(likelihood_reading, size)
    name = work.part(chosen, size, _cosines)
    correct = work.part(rehearsed, size, keep=4).corrections[name]
    return None if name == "none" else partial(_corrected, work, correct)


def _cosines(view: View, auxiliary: Auxiliary, generator: Generator) -> Tensor:  # noqa: ARG001
    return cosines(view.latest, workspace(view, auxiliary))


def _corrected(work: Workspace, correct: Correct, observation: Observation) -> Observation:
    return corrected(observation, trained_names(work.auxiliary), correct, work.memory).latest
