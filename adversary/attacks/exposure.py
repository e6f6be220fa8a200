"""Exposure: how much of a canary's digits the likelihood tells, in every round.

N. Carlini, C. Liu, Ú. Erlingsson, J. Kos, D. Song, "The Secret Sharer: Evaluating and testing
unintended memorization in neural networks", USENIX Security 2019, Definition 5.

Idea: a client holds one of many texts that differ in random digits alone. A model that was trained
on it finds it likelier than the others. `exposure-model` asks the model sent, which every client
sees, and `exposure-upload` the client's own; `exposure` takes the gain from the one to the other,
which cancels what digits are likely at all; `exposure-rounds` adds the gains of all rounds.
*Server must know*: the model, and the text but for its digits.
*Exact when*: never for sure.
*Differs from the paper*: the exact rank among random candidates, in place of an estimate for all of
them; the paper asks the final model alone.
"""

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.carried import carried
from adversary.steps import trained_state
from adversary.text.exposure import log_likelihoods
from adversary.workspace import Workspace, workspace
from fedsim.core.types import Auxiliary, Observation, View


def exposure(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " r"]:
    """Return how much likelier each canary became by the client's training.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With canaries.
        generator: Not used.
    """
    return _gain(view.latest, workspace(view, auxiliary))


def exposure_upload(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " r"]:
    """Return the log-likelihood of each canary under the model that the client uploaded.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With canaries.
        generator: Not used.
    """
    return log_likelihoods(workspace(view, auxiliary), trained_state(view.latest))


def exposure_model(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " r"]:
    """Return the log-likelihood of each canary under the model that was sent to the client.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With canaries.
        generator: Not used.
    """
    return workspace(view, auxiliary).part(_sent)


def exposure_rounds(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " r"]:
    """Return how much likelier each canary became by the client's training, in all rounds together.

    Args:
        view: One client's observations, all of which count.
        auxiliary: With canaries.
        generator: Not used.
    """

    def add(before: Tensor | None, single: View) -> Tensor:
        gain = _gain(single.latest, workspace(single, auxiliary))
        return gain if before is None else before + gain

    total = carried(view, (exposure_rounds, auxiliary), add)
    assert total is not None  # there is the latest round
    return total


def _gain(observation: Observation, work: Workspace) -> Float[Tensor, " r"]:
    after = work.part(_uploaded, observation, keep=256)
    return after - work.part(_sent)


def _sent(work: Workspace) -> Float[Tensor, " r"]:
    return log_likelihoods(work, work.sent)


def _uploaded(work: Workspace, observation: Observation) -> Float[Tensor, " r"]:
    return log_likelihoods(work, trained_state(observation))


SUMMARIES = {
    "exposure": "digits of a canary, by the upload against the model sent",
    "exposure-upload": "digits of a canary, by the client's model alone",
    "exposure-model": "digits of a canary, by the model that every client sees",
    "exposure-rounds": "digits of a canary, by the gains of all rounds",
}
INFER = (exposure, exposure_upload, exposure_model, exposure_rounds)
ATTACKS = tuple(
    Attack(
        name=name,
        family="exposure",
        on_device=True,
        infer=infer,
        needs=("canaries",),
        summary=summary,
        over_rounds=infer is exposure_rounds,
        has_twin=False,
        any_optimizer=True,
    )
    for (name, summary), infer in zip(SUMMARIES.items(), INFER, strict=True)
)
