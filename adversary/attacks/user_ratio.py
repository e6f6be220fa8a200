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

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.source_inference import source_inference
from adversary.members.candidates import losses
from adversary.memo import once
from adversary.secrets import prior
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
    latest = view.latest
    own, known = gains(latest, auxiliary), _cohort(auxiliary, view.cohort).items()
    others = [found for client, found in known if client != latest.update.client]
    if len(others) > 1:
        there = torch.stack(others)
        variance = there.var(dim=0)
        spread = variance + SHRINK * variance.mean()
        own = (own - there.mean(dim=0)) / spread.clamp(min=torch.finfo(own.dtype).tiny).sqrt()
    deviation = own.std().clamp(min=torch.finfo(own.dtype).tiny)
    return ((own - own.mean()) / deviation + prior("user", view, auxiliary)).log_softmax(dim=0)


def gains(observation: Observation, auxiliary: Auxiliary) -> Float[Tensor, " classes"]:
    """Return the mean of log p(x) under the local model over that under the one sent, per user."""
    asked = _of_users(auxiliary)
    gained = source_inference(View([observation]), asked, Generator())
    if observation.local.upload == "weights":
        smoothing = observation.local.label_smoothing
        gained = gained + _before(asked, observation.sent, smoothing=smoothing)
    assert auxiliary.marks is not None
    users, marks = auxiliary.rules.users, auxiliary.marks["user"]
    whose = marks[marks >= 0]
    total = torch.zeros(users, dtype=torch.float64).index_add_(0, whose, gained)
    return total / torch.bincount(whose, minlength=users).clamp(min=1)


@once(size=2)
def _cohort(auxiliary: Auxiliary, cohort: Sequence[Observation]) -> dict[str, Tensor]:
    """Return every client's gains, once for all views of the round."""
    found = {}
    for observation in cohort:
        try:
            found[observation.update.client] = gains(observation, auxiliary)
        except ValueError:
            continue
    return found


_before = once(size=4)(losses)


@once()
def _of_users(auxiliary: Auxiliary) -> Auxiliary:
    """Return an adversary that asks about all records of the users in question."""
    inputs, labels, marks = auxiliary.inputs, auxiliary.labels, auxiliary.marks
    assert inputs is not None
    assert labels is not None
    assert marks is not None
    known = marks["user"] >= 0
    return replace(auxiliary, candidates=Candidates(inputs[known], labels[known]))


ATTACKS = (
    Attack(
        name="uia-ratio",
        family="user",
        infer=user_ratio,
        needs=("inputs", "labels", "marks"),
        summary="the user whose other records the update makes likelier",
        has_twin=False,
    ),
)
