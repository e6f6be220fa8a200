"""Cosine membership inference: a client's own examples point where its update goes.

J. Li, N. Li, B. Ribeiro, "Effective passive membership inference attacks in federated learning
against overparameterized models", ICLR 2023, the cosine attack.

Idea: an upload is a sum of gradients of the client's examples. In a model with many parameters the
gradients of different examples are nearly orthogonal, so that the cosine of the upload and the
gradient of one record is larger where the record is one of them.

*Server must know*: the weights sent, the update, the loss, and the candidate records themselves.
*Exact when*: the candidate is the only example of one gradient (cosine 1), or gradients are
orthogonal; a heuristic otherwise.
*Differs from the paper*: its code is not at hand. One round is judged by itself, without averaging
over rounds. Gradients are taken in evaluation mode.
"""

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.members.candidates import cosines
from adversary.workspace import workspace
from fedsim.core.types import Auxiliary, View


def cosine_mia(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " m"]:
    """Return the cosine of the client's descent direction and each candidate's, in [−1, 1].

    0 where the update or a candidate's gradient is zero.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With candidates.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The update is not finite.
    """
    return cosines(view.latest, workspace(view, auxiliary))


ATTACKS = (
    Attack(
        name="cosine-mia",
        family="membership",
        on_device=True,
        infer=cosine_mia,
        needs=("candidates",),
        summary="cosine of the update and each candidate's own gradient",
    ),
    Attack(
        name="cosine-mia-rounds",
        family="membership",
        on_device=True,
        infer=cosine_mia,
        needs=("candidates",),
        summary="the cosine's mean over a client's rounds so far",
        over_rounds=True,
    ),
)
