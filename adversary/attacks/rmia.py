"""RMIA: a record gained more from the client's training than records of the population did.

S. Zarifzadeh, P. Liu, R. Shokri, "Low-cost high-power membership inference attacks", ICML 2024.
Details follow the authors' code, Privacy Meter.

Idea: p(x | θ) / p(x) says how much likelier the local model θ makes a record x than models in
general do. The score of x is the share of population records z, which nobody trained on, for which
[p(x | θ) / p(x)] / [p(z | θ) / p(z)] is above γ. p(x) is a mean over reference models: local
models of clients that the server rehearses in the same round. *Offline*, none of them had x, and
p(x) = ½ ((1 + a) p_out(x) + 1 − a). *Online*, p(x) = ½ (p_in(x) + p_out(x)).

*Server must know*: the weights sent, the update, the number of examples, the protocol, auxiliary
data, and the candidate records.
*Exact when*: the posterior of θ without x is the same for all x, and reference models are drawn
from it.
*Differs from the paper*: reference models are one local update long and start at the weights sent,
which costs little. a is chosen on them, with their own records as members. Online, all candidates
and population records are dealt out to clients; a training for each record is not needed. An
uploaded gradient is followed by one step. p is the softmax of the label, without augmentation. A
ratio of exactly γ counts half. Who knows the defense reads uploads, reference models' too, through
it: by the correction with which rehearsed clients' own records are told best.
"""

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.adaptive.readings import likelihood_reading
from adversary.attack import Attack
from adversary.members.references import (
    References,
    dominated,
    log_likelihood,
    offline,
    online,
    read,
)
from adversary.members.shadows import shadow_size
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, Observation, View


def rmia(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    gamma: float = 1.0,
    a: float | None = None,
) -> Float[Tensor, " m"]:
    """Return the share of the population that every candidate dominates, offline.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels and candidates; clients are rehearsed with its defense.
        generator: Not used: the answer is deterministic.
        gamma: γ, the ratio that counts as more; positive.
        a: How far training on a record raises its likelihood, in [0, 1]; chosen on rehearsed
            clients if None.

    Raises:
        ValueError: The update is not finite, the client told no number of examples, or an option
            is out of range.
    """
    return offline_scores(view, auxiliary, auxiliary, a, gamma)


def offline_scores(
    view: View, auxiliary: Auxiliary, asking: Auxiliary, a: float | None, gamma: float
) -> Float[Tensor, " m"]:
    """Return the share of the population that every record asked about dominates, offline.

    Raises:
        ValueError: As `rmia`.
    """
    if a is not None and not 0 <= a <= 1:
        raise NotApplicable(f"a: must be in [0, 1], got {a}")
    latest, work = view.latest, workspace(view, auxiliary)
    size = shadow_size(latest)
    references = work.part(offline, size, a, asking, work.part(likelihood_reading, size))
    return scores(read(latest, references.reading), asking, references, gamma)


def rmia_online(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    gamma: float = 1.0,
) -> Float[Tensor, " m"]:
    """Return the share of the population that every candidate dominates, online.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels and candidates; clients are rehearsed with its defense.
        generator: Not used: the answer is deterministic.
        gamma: γ, the ratio that counts as more; positive.

    Raises:
        ValueError: As `rmia`.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    size = shadow_size(latest)
    references = work.part(online, size, work.part(likelihood_reading, size))
    return scores(read(latest, references.reading), auxiliary, references, gamma)


def scores(
    observation: Observation, asking: Auxiliary, references: References, gamma: float
) -> Float[Tensor, " m"]:
    """Return the share of the population that every candidate dominates.

    Raises:
        ValueError: The update is not finite, or γ is not positive.
    """
    if not gamma > 0:
        raise NotApplicable(f"gamma: must be positive, got {gamma}")
    ratio = log_likelihood(observation, asking) - references.candidates
    population = log_likelihood(observation, references.asking) - references.population
    return dominated(ratio, population, gamma)


ATTACKS = (
    Attack(
        name="rmia",
        family="membership",
        on_device=True,
        infer=rmia,
        needs=("inputs", "labels", "candidates"),
        summary="share of population records that gained less than the candidate",
        rehearses=True,
        any_optimizer=True,
    ),
    Attack(
        name="rmia-rounds",
        family="membership",
        on_device=True,
        infer=rmia,
        needs=("inputs", "labels", "candidates"),
        summary="rmia, its mean over the rounds so far",
        rehearses=True,
        any_optimizer=True,
        over_rounds=True,
    ),
    Attack(
        name="rmia-online",
        family="membership",
        on_device=True,
        infer=rmia_online,
        needs=("inputs", "labels", "candidates"),
        summary="rmia with reference models that trained on the candidates, too",
        rehearses=True,
        any_optimizer=True,
    ),
    Attack(
        name="rmia-online-rounds",
        family="membership",
        on_device=True,
        infer=rmia_online,
        needs=("inputs", "labels", "candidates"),
        summary="rmia-online, its mean over the rounds so far",
        rehearses=True,
        any_optimizer=True,
        over_rounds=True,
    ),
)
