"""Source inference: the client whose local model has the smallest loss on a record used it.

H. Hu, Z. Salcic, L. Sun, G. Dobbie, X. Zhang, "Source inference attacks in federated learning",
ICDM 2021; H. Hu, X. Zhang, Z. Salcic, L. Sun, K.-K. R. Choo, G. Dobbie, "Source inference attacks:
beyond membership inference attacks in federated learning", TDSC 2023, theorem 1.

Idea: a record is known to be in some client's data. Under a uniform prior over clients, the
likeliest is the one whose local model fits the record best.

*Server must know*: the weights sent, the update, the loss, and the candidate records.
*Exact when*: the posterior of the model given its data is a Gibbs distribution of the loss.
*Differs from the paper*: of an uploaded gradient, the score is the loss to first order in it. One
round is judged by itself. The paper reports accuracy alone; clients that differ in their labels
give most of it away without any memory of the record, which the family's blind guess says.
"""

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.members.candidates import losses_after, slopes, to_mean_gradient, uphill
from adversary.workspace import workspace
from fedsim.core.types import Auxiliary, View


def source_inference(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " m"]:
    """Return minus the loss of every candidate under the client's local model.

    For an uploaded gradient, how fast a step against it lowers that loss. For a sum over several
    clients, the model is their mean.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With candidates.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The update is not finite, or the local model computes what is not.
    """
    latest = view.latest
    direction, length = uphill(latest, auxiliary)
    if latest.local.upload == "gradient":
        length *= to_mean_gradient(latest)
        return length * slopes(workspace(view, auxiliary), direction)
    return -losses_after(latest, auxiliary, smoothing=latest.local.label_smoothing)


ATTACKS = (
    Attack(
        name="source-inference",
        family="source",
        on_device=True,
        infer=source_inference,
        needs=("candidates",),
        summary="the loss of each candidate under the client's local model",
    ),
)
