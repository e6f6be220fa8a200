"""Shadow inference: a predictor learned from rehearsed uploads whose secret is known.

Li et al., "Analyzing Inference Privacy Risks Through Gradients in Machine Learning", CCS 2024, of
properties (after Melis et al., S&P 2019), distributions and users; inside a federation.

Idea: rehearse many uploads at the weights sent, from auxiliary examples drawn under each secret;
learn to tell the secrets; ask the client's upload.

*Server must know*: the weights sent, the protocol, the number of examples, auxiliary examples of
which it knows the property, and its definition.
*Exact when*: rehearsed clients are like real ones and the predictor is the true posterior.
*Differs from the paper*: its code is not at hand. A client's examples other than for their property
are drawn like the auxiliary ones, as a forest and a linear discriminant are to see them; a client
whose labels are spread otherwise is not like that. Sizes are rounded, so that clients of about the
same size share a predictor. For the property, shadow clients have exactly as many examples with it
as the question asks, or none.
"""

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.games import GAMES
from adversary.games.game import with_label_skew
from adversary.games.learn import rehearsed
from adversary.games.learner import Learner
from adversary.games.predictors import Predictor
from adversary.games.records import Pool
from adversary.over_rounds import Terms, added, held_out, summed
from adversary.rehearsal import rehearsed_size
from adversary.secrets import prior
from adversary.steps import keeps_data
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.params import not_finite
from fedsim.core.types import Auxiliary, Observation, View


def shadow_inference(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    family: str,
    over_rounds: bool = False,
) -> Float[Tensor, " classes"]:
    """Return log p(secret | uploads), in nats, with the prior of the blind guess.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels, marks and rules; where it has the defense, shadow uploads
            pass through it too.
        generator: Not used: rehearsals are the same for all clients.
        family: `property`, `distribution` or `user`.
        over_rounds: Use all observations, for the secret of all that the client has used so far.

    Raises:
        ValueError: The update is not finite, the client told no number of examples, or there are
            no auxiliary examples with and without the property.
    """
    work = workspace(view, auxiliary)
    if not over_rounds:
        odds = evidence(view.latest, work, family)[0]
    elif family == "property" and not keeps_data(view.latest):
        return any_so_far(view, work)
    else:
        odds = added(
            view, auxiliary, family, lambda latest: evidence(latest, work.at(latest), family)
        )
    return (odds + prior(family, view, auxiliary)).log_softmax(dim=0)


def any_so_far(view: View, work: Workspace) -> Float[Tensor, " classes"]:
    """Return log p(no example so far has the property, any has), of a new batch in every round.

    Raises:
        NotApplicable: The property is of more than one example.
    """
    auxiliary = work.auxiliary
    assert auxiliary.rules is not None
    if auxiliary.rules.count > 1:
        raise NotApplicable(f"game.count: must be 1 for new batches, got {auxiliary.rules.count}")

    def none(single: View) -> Terms:
        latest = single.latest
        odds = evidence(latest, work.at(latest), "property")[0]
        return ((odds + prior("property", single, auxiliary)).log_softmax(dim=0)[0],)

    (log_none,), _ = summed(view, none, (auxiliary, "none"), same=True)
    return torch.stack([log_none, torch.log(-torch.expm1(log_none))])


def evidence(observation: Observation, work: Workspace, family: str) -> Terms:
    """Return log p(upload | secret), (classes,), and what `predicted` returns.

    Raises:
        ValueError: The update is not finite, or the client told no number of examples.
    """
    if reason := not_finite(observation.update.delta):
        raise ValueError(f"update: {reason}")
    assert work.auxiliary.rules is not None
    size = rehearsed_size(observation)
    size = max(size, work.auxiliary.rules.count if family == "property" else 1)
    round_, same_records = observation.update.round, keeps_data(observation)
    learner, predictor = work.part(fitted, family, size, round_, same_records)
    question = learner.question(observation.update.delta, size)
    return predictor.log_probabilities(question)[0], *held_out(predictor)


def fitted(
    work: Workspace, family: str, size: int, round_: int, same_records: bool
) -> tuple[Learner, Predictor]:
    """Return a predictor learned at the weights sent, for all clients of this size."""
    auxiliary = work.auxiliary
    assert auxiliary.inputs is not None
    assert auxiliary.labels is not None
    assert auxiliary.marks is not None
    assert auxiliary.rules is not None
    pool = Pool(auxiliary.inputs, auxiliary.labels, auxiliary.marks[family])
    rules = replace(auxiliary.rules, batch=size)
    game = replace(GAMES[family], sample=with_label_skew(GAMES[family].sample))
    return rehearsed(game, rules, pool, work, round_, same_records=same_records)


property_inference = partial(shadow_inference, family="property")
distribution_inference = partial(shadow_inference, family="distribution")
user_inference = partial(shadow_inference, family="user")


ATTACKS = (
    Attack(
        name="pia",
        family="property",
        on_device=True,
        infer=property_inference,
        needs=("inputs", "labels", "marks"),
        summary="whether any example has the property, from rehearsed clients",
    ),
    Attack(
        name="dia",
        family="distribution",
        on_device=True,
        infer=distribution_inference,
        needs=("inputs", "labels", "marks"),
        summary="which share of the examples has it, from rehearsed clients",
    ),
    Attack(
        name="uia",
        family="user",
        on_device=True,
        infer=user_inference,
        needs=("inputs", "labels", "marks"),
        summary="whose examples they are, from rehearsed clients",
    ),
    Attack(
        name="pia-rounds",
        family="property",
        on_device=True,
        infer=partial(property_inference, over_rounds=True),
        needs=("inputs", "labels", "marks"),
        summary="pia on all of a client's updates so far",
        over_rounds=True,
    ),
    Attack(
        name="dia-rounds",
        family="distribution",
        on_device=True,
        infer=partial(distribution_inference, over_rounds=True),
        needs=("inputs", "labels", "marks"),
        summary="dia on all of a client's updates so far",
        over_rounds=True,
    ),
    Attack(
        name="uia-rounds",
        family="user",
        on_device=True,
        infer=partial(user_inference, over_rounds=True),
        needs=("inputs", "labels", "marks"),
        summary="uia on all of a client's updates so far",
        over_rounds=True,
    ),
)
