"""SPEAR: a whole batch behind a fully connected ReLU layer, exact.

D. I. Dimitrov, M. Baader, M. N. Müller, M. Vechev, "SPEAR: exact gradient inversion of batches in
federated learning", NeurIPS 2024.

Idea: the first layer's weight gradient is ZᵀX of rank B. ReLU puts zeros into Z that no other way
to take the product apart has, so that the sparsest one is the true one.

*Server must know*: the gradient of one step, and how many examples it is of.
*Exact when*: its answer passes: the zeros of Z must be exactly those that the inputs found would
give. Otherwise it refuses. The number of draws grows as 2^B.
*Differs from the paper*: its code is not at hand. Rows of the gradient that are zero are left out
first, and what counts as zero follows from the first singular value beyond B.
"""

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.inversion.chain import first_linear, follows
from adversary.inversion.fully_connected import spear as solve
from adversary.inversion.reading import batch_gradient, batch_size, input_shape, weights
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View


def spear(view: View, auxiliary: Auxiliary, generator: Generator) -> Float[Tensor, "n *shape"]:
    """Return all inputs of the batch, in any order.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Draws which units are taken to be inactive.

    Raises:
        ValueError: The first layer is not linear with a bias and ReLU, the client took several
            steps, or no answer passes the test of zeros.
    """
    latest, shape = view.latest, input_shape(auxiliary)
    gradient, sent = batch_gradient(latest, auxiliary), weights(latest, auxiliary)
    layer = first_linear(auxiliary.model, shape)
    after = follows(auxiliary.model, layer)
    if after != "ReLU":
        raise NotApplicable(f"spear: ReLU must follow {layer}, got {after}")
    weight, bias = f"{layer}.weight", f"{layer}.bias"
    inputs = solve(
        gradient[weight], gradient[bias], sent[weight], sent[bias], batch_size(latest), generator
    )
    return inputs.view(-1, *shape).float()


ATTACKS = (
    Attack(
        name="spear",
        family="reconstruction",
        infer=spear,
        summary="a whole batch behind a fully connected ReLU layer, exact",
        has_twin=False,
    ),
)
