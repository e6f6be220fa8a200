"""Analytic inversion: the inputs of a model that begins with a fully connected layer.

L. T. Phong, Y. Aono, T. Hayashi, L. Wang, S. Moriai, "Privacy-preserving deep learning via
additively homomorphic encryption", IEEE TIFS 2018; J. Geiping et al., "Inverting gradients",
NeurIPS 2020, proposition 3.1.

Idea: a unit's weight gradient is its input times its bias gradient; their ratio is the input.

*Server must know*: the gradient of one step, and how many examples it is of.
*Exact when*: there is one example, or one example alone is active on a unit. Which units these are
is told by others that give the same ratio; an example that is alone on a single unit may be missed.
*Differs from the paper*: of one example the mean over all units, weighted as their errors demand,
not the first unit's ratio: 10 to 20 dB better where gradients are rounded.
"""

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.inversion.chain import first_linear
from adversary.inversion.fully_connected import ratios
from adversary.inversion.reading import batch_gradient, batch_size, input_shape
from fedsim.core.types import Auxiliary, View


def analytic(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, "n *shape"]:
    """Return the inputs that most units agree on, at most as many as there are examples.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The first layer is not linear with a bias, or the client took several steps.
    """
    latest, shape = view.latest, input_shape(auxiliary)
    gradient = batch_gradient(latest, auxiliary)
    layer = first_linear(auxiliary.model, shape)
    recovered = ratios(gradient[f"{layer}.weight"], gradient[f"{layer}.bias"], batch_size(latest))
    return recovered.inputs.view(-1, *shape).float()


ATTACKS = (
    Attack(
        name="analytic",
        family="reconstruction",
        infer=analytic,
        summary="inputs of a fully connected first layer, by ratios of gradients",
        has_twin=False,
    ),
)
