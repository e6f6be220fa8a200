"""Gradient-difference membership inference: without its own gradient, an update is shorter.

J. Li, N. Li, B. Ribeiro, "Effective passive membership inference attacks in federated learning
against overparameterized models", ICLR 2023, the gradient-difference attack.

Idea: let u be the sum of the gradients of a client's examples. Where gradients of different
examples are orthogonal, ‖u‖² − ‖u − g_z‖² is ‖g_z‖² for an example of the client, and −‖g_z‖² for
any other record: its sign is the answer.

*Server must know*: the weights sent, the update, the number of examples, the loss, and the
candidate records.
*Exact when*: gradients are orthogonal, and u is the sum of one batch's gradients.
*Differs from the paper*: its code is not at hand, and which multiple of the update u is, we could
not see. With the mean over a batch (`total = "mean"`) the term ‖g_z‖², which knows nothing of the
client, outweighs all others as soon as the batch has more than two examples. Of several local
steps, u is their mean gradient times the client's number of examples: an example's gradient is in
it once. One round is judged by itself.
"""

from typing import Literal

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.members.candidates import gradient_norms, slopes, to_mean_gradient, uphill
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View


def gradient_difference_mia(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    total: Literal["sum", "mean"] = "sum",
) -> Float[Tensor, " m"]:
    """Return ‖u‖² − ‖u − g_z‖² = 2⟨u, g_z⟩ − ‖g_z‖² for every candidate z.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With candidates.
        generator: Not used: the answer is deterministic.
        total: Whether u is the sum or the mean of the examples' gradients.

    Raises:
        ValueError: The update is not finite, or the client told no number of examples.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    direction, length = uphill(latest, auxiliary)
    length *= to_mean_gradient(latest)
    if total == "sum":
        if latest.update.num_examples is None:
            raise NotApplicable("num_examples: must be told by the client, got none")
        length *= latest.update.num_examples
    return 2 * length * slopes(work, direction) - work.part(gradient_norms) ** 2


ATTACKS = (
    Attack(
        name="gradient-difference-mia",
        family="membership",
        on_device=True,
        infer=gradient_difference_mia,
        needs=("candidates",),
        summary="how much shorter the update is without each candidate's gradient",
    ),
)
