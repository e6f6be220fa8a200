"""Loss drop: a record's loss falls by more where a client trained on it.

fedsim's own form of J. Ye et al., "Enhanced membership inference attacks against machine learning
models", CCS 2022, Attack R, and of N. Carlini et al., "Extracting training data from large language
models", USENIX Security 2021: a reference model says how hard a record is.

Idea: the loss under the client's model alone says first of all how hard a record is. The model sent
is a reference that nobody has to train. What is left is what training took off a record's loss.

*Server must know*: the weights sent, the update, the loss, and the candidate records.
*Exact when*: never; a heuristic.
*Differs from the paper*: one reference model, which is the one that the client began with. Of an
uploaded gradient, the client's model is one step of the protocol's length away.
"""

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.members.candidates import losses_after, losses_before
from adversary.workspace import workspace
from fedsim.core.types import Auxiliary, View


def loss_drop(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " m"]:
    """Return by how much each candidate's loss fell from the model sent to the client's.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With candidates.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The client's model computes what is not finite.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    smoothing = latest.local.label_smoothing
    return work.part(losses_before) - losses_after(latest, auxiliary, smoothing=smoothing)


ATTACK = Attack(
    name="loss-drop",
    family="membership",
    on_device=True,
    infer=loss_drop,
    needs=("candidates",),
    summary="how far the client's training lowered each candidate's loss",
    any_optimizer=True,
)
