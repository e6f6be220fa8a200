"""Linkage: which uploads of different rounds are of one client, though nobody signs them.

T. Orekondy, S. J. Oh, Y. Zhang, B. Schiele, M. Fritz, "Gradient-leaks: understanding and
controlling deanonymization in federated learning", arXiv 1805.05838, 2018: the matching of updates.
Sequences, label evidence, and weights learned from rehearsed clients are fedsim's own.

Idea: a client's data changes little from round to round, and its update deviates from the round's
mean in the direction of that data. Two uploads of one round are of two clients, which shows how
alike strangers are, and lets uploads be assigned to sequences one round after the other.

*Server must know*: the uploads of all rounds, without names and in any order. `linkage-labels` and
`linkage-head`: a linear head; `linkage-labels` reads counts by EB-GLS where there is auxiliary
data, else by LLG. `linkage-rehearsed`: auxiliary data and the protocol.
*Exact when*: clients' updates are orthogonal and every round's are the same.
*Differs from the paper*: the paper learns a Siamese network from users whose updates are known.
Here none is: weights are taken from the uploads themselves, or from rehearsed clients.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.adaptive import labels as adaptive_labels
from adversary.attack import Attack
from adversary.attacks.eb_gls import eb_gls
from adversary.attacks.llg import llg
from adversary.labels.head import find_head
from adversary.linkage.counts import evidence
from adversary.linkage.features import cosines, evenly, sketched, whitened
from adversary.linkage.links import Compare, Describe, linked
from adversary.linkage.rehearsed import discriminant, usual_size
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary, View


def linkage(
    describe: Describe, compare: Compare = cosines, *, over_rounds: bool = False
) -> Callable[[View, Auxiliary, Generator], Float[Tensor, "rows uploads"]]:
    """Return an attack on rounds without names, as `fedsim.run.unnamed` shows them.

    Its guess is as `adversary.linkage.guess` packs it, and draws nothing at random. It raises a
    ValueError where there is one round alone, or no upload can be read.

    Args:
        describe: What is looked at.
        compare: How alike two uploads are by it.
        over_rounds: Compare an upload with all earlier ones of a sequence together.
    """

    def infer(
        view: View,
        auxiliary: Auxiliary,
        generator: Generator,  # noqa: ARG001
    ) -> Float[Tensor, "rows uploads"]:
        return linked(view, auxiliary, describe=describe, compare=compare, over_rounds=over_rounds)

    return infer


def deviations(view: View, auxiliary: Auxiliary) -> Tensor:  # noqa: ARG001
    """Return uploads about their round's mean."""
    return sketched(view, evenly)


def whitened_deviations(view: View, auxiliary: Auxiliary) -> Tensor:  # noqa: ARG001
    """Return uploads about their round's mean, entries in standard deviations over the round."""
    return sketched(view, whitened)


def head_deviations(view: View, auxiliary: Auxiliary) -> Tensor:
    """Return the whitened deviations of the linear head alone."""
    head = find_head(workspace(view, auxiliary))
    names = [name for name in (head.weight, head.bias) if name is not None]
    return sketched(view, whitened, names)


def rehearsed_deviations(view: View, auxiliary: Auxiliary) -> Tensor:
    """Return uploads about their round's mean, entries weighted as rehearsed clients differ."""
    weights = workspace(view, auxiliary).part(discriminant, usual_size(view))
    return sketched(view, lambda name, _: weights[name], list(weights))


def label_shares(view: View, auxiliary: Auxiliary) -> Float[Tensor, "n classes"]:
    """Return the shares of classes that a label attack reads from each upload; zeros if it cannot.

    Raises:
        ValueError: It can read none.
    """
    attack = llg if auxiliary.inputs is None or auxiliary.labels is None else eb_gls
    if auxiliary.defense is not None:
        attack = partial(adaptive_labels.infer, inner=attack)
    shares = torch.zeros(len(view.cohort), auxiliary.num_classes, dtype=torch.float64)
    errors: list[ValueError] = []
    for place, observation in enumerate(view.cohort):
        alone = View([observation], memory=view.memory)
        try:
            counts = attack(alone, auxiliary, derived(0, "linkage", place)).double()
            shares[place] = counts / counts.sum()
        except ValueError as error:
            errors.append(error)
    if len(errors) == len(view.cohort):
        raise errors[0]
    return shares


def num_examples(view: View, auxiliary: Auxiliary) -> Float[Tensor, "n 1"]:  # noqa: ARG001
    """Return the logarithm of each client's own count of its examples; NaN where it told none.

    Raises:
        NotApplicable: No client told it.
    """
    counts = [observation.update.num_examples for observation in view.cohort]
    if all(count is None for count in counts):
        raise NotApplicable("num_examples: must be told by a client, got none")
    logs = [math.nan if count is None else math.log(count) for count in counts]
    return torch.tensor(logs, dtype=torch.float64).unsqueeze(1)


def nearness(rows: Float[Tensor, "n 1"]) -> Float[Tensor, "n n"]:
    """Return minus the absolute difference of every pair; of a missing value, that of the mean."""
    off = (rows - rows.T).abs()
    return -off.nan_to_num(float(off.nanmean()))


ATTACKS = (
    Attack(
        name="linkage-cosine",
        family="linkage",
        infer=linkage(deviations),
        summary="cosine of updates about their round's mean",
        has_twin=False,
    ),
    Attack(
        name="linkage-whitened",
        family="linkage",
        infer=linkage(whitened_deviations),
        summary="the same with entries in standard deviations over the round",
        has_twin=False,
    ),
    Attack(
        name="linkage-whitened-rounds",
        family="linkage",
        infer=linkage(whitened_deviations, over_rounds=True),
        summary="linkage-whitened, of an upload with all earlier ones of a sequence",
        has_twin=False,
        over_rounds=True,
    ),
    Attack(
        name="linkage-rehearsed",
        family="linkage",
        infer=linkage(rehearsed_deviations),
        needs=("inputs", "labels"),
        summary="the same with weights learned from rehearsed clients",
        rehearses=True,
        any_optimizer=True,
    ),
    Attack(
        name="linkage-rehearsed-rounds",
        family="linkage",
        infer=linkage(rehearsed_deviations, over_rounds=True),
        needs=("inputs", "labels"),
        summary="linkage-rehearsed, of an upload with all earlier ones of a sequence",
        rehearses=True,
        any_optimizer=True,
        over_rounds=True,
    ),
    Attack(
        name="linkage-head",
        family="linkage",
        kinds=("values", "tokens"),
        infer=linkage(head_deviations),
        summary="linkage-whitened of the linear head alone",
        has_twin=False,
        reads="head",
    ),
    Attack(
        name="linkage-labels",
        family="linkage",
        kinds=("values", "tokens"),
        infer=linkage(label_shares, evidence),
        summary="likelihood that the label counts read from two uploads are of one client",
        rehearses=True,
        any_optimizer=True,
        reads="head",
    ),
    Attack(
        name="linkage-labels-rounds",
        family="linkage",
        kinds=("values", "tokens"),
        infer=linkage(label_shares, evidence, over_rounds=True),
        summary="linkage-labels, of an upload with all earlier ones of a sequence",
        rehearses=True,
        any_optimizer=True,
        reads="head",
        over_rounds=True,
    ),
    Attack(
        name="linkage-examples",
        family="linkage",
        infer=linkage(num_examples, nearness),
        summary="the number of examples that clients tell",
        has_twin=False,
    ),
)
