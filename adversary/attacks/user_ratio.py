"""User inference by a likelihood ratio: the user whose other records the update makes likelier.

N. Kandpal, K. Pillutla, A. Oprea, P. Kairouz, C. A. Choquette-Choo, Z. Xu, "User inference attacks
on large language models", EMNLP 2024 (arXiv 2310.09266).

Idea: training on some records of a user makes the user's other records likelier too, compared with
a model that the user had no part in. In a federation that reference costs nothing: it is the
round's global model.

*Server must know*: the weights sent, the updates of all clients of the round, the loss, and some
records of every user.
*Exact when*: users' records tell nothing of each other.
*Differs from the paper*: the paper asks of one user against a threshold; here users compete, and
some gain from any training at all. A user's gain is therefore compared with what it gains from the
round's other clients, in standard deviations, where there are two or more. The answer is the
softmax of these z-scores, the prior added: its bits are a convention, its order is not. An uploaded
gradient is followed by a small step.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.source_inference import source_inference
from adversary.members.candidates import losses_before
from adversary.secrets import prior
from adversary.workspace import Workspace, workspace
from fedsim.core.types import Auxiliary, Candidates, Observation, View

SHRINK = 0.1  # share of the mean variance over users that is added to each one's


def user_ratio(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " classes"]:
    """Return log p(user | upload), in nats, with the prior of the blind guess.

    Args:
        view: One client's observations, with the round's cohort; the latest is attacked.
        auxiliary: With inputs, labels, marks and rules.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The update is not finite, or the local model computes what is not.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    gain, cohort = gains(latest, work), work.part(_cohort, tuple(view.cohort))
    others = [values for client, values in cohort.items() if client != latest.update.client]
    tiny = torch.finfo(gain.dtype).tiny
    if len(others) > 1:
        by_chance = torch.stack(others)
        variance = by_chance.var(dim=0)
        spread = variance + SHRINK * variance.mean()
        gain = (gain - by_chance.mean(dim=0)) / spread.clamp(min=tiny).sqrt()
    deviation = gain.std().clamp(min=tiny)
    return ((gain - gain.mean()) / deviation + prior("user", view, auxiliary)).log_softmax(dim=0)


def gains(observation: Observation, work: Workspace) -> Float[Tensor, " classes"]:
    """Return the mean of log p(x) under the local model over that under the one sent, per user."""
    records = work.derived(_of_users)
    view = View([observation], memory=work.memory)
    gained = source_inference(view, records.auxiliary, Generator())
    if observation.local.upload == "weights":
        gained = gained + records.part(losses_before)
    assert work.auxiliary.marks is not None
    assert work.auxiliary.rules is not None
    users, marks = work.auxiliary.rules.users, work.auxiliary.marks["user"]
    whose = marks[marks >= 0]
    total = torch.zeros(users, dtype=torch.float64).index_add_(0, whose, gained)
    return total / torch.bincount(whose, minlength=users).clamp(min=1)


def _cohort(work: Workspace, cohort: tuple[Observation, ...]) -> dict[str, Tensor]:
    """Return the gains of every client of the round whose update is finite."""
    users_gain = {}
    for observation in cohort:
        try:
            users_gain[observation.update.client] = gains(observation, work.at(observation))
        except ValueError:
            continue
    return users_gain


def _of_users(auxiliary: Auxiliary) -> Auxiliary:
    """Let the adversary ask about all records of the users in question."""
    inputs, labels, marks = auxiliary.inputs, auxiliary.labels, auxiliary.marks
    assert inputs is not None
    assert labels is not None
    assert marks is not None
    rows = marks["user"] >= 0
    return replace(auxiliary, candidates=Candidates(inputs[rows], labels[rows]))


ATTACKS = (
    Attack(
        name="uia-ratio",
        family="user",
        on_device=True,
        infer=user_ratio,
        needs=("inputs", "labels", "marks"),
        summary="the user whose other records the update makes likelier",
        has_twin=False,
    ),
)
