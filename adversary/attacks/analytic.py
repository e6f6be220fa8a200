"""Analytic inversion: the inputs of a model that begins with a fully connected layer.

L. T. Phong, Y. Aono, T. Hayashi, L. Wang, S. Moriai, "Privacy-preserving deep learning via
additively homomorphic encryption", IEEE TIFS 2018; J. Geiping et al., "Inverting gradients",
NeurIPS 2020, proposition 3.1.

Idea: a unit's weight gradient is its input times its bias gradient; their ratio is the input.

*Server must know*: the update, and how many examples it is of.
*Exact when*: there is one example, or one example alone is active on a unit in a single step. Which
units these are is told by others that give the same ratio; an example that is alone on a single
unit may be missed. Of two classes the loss's slopes at an example are all multiples of one vector:
units that mix the same examples agree on the mixture.
*Differs from the paper*: of one example the mean over all units, weighted as their errors demand,
not the first unit's ratio: 10 to 20 dB better where gradients are rounded. Of one example any
number of local steps will do: each adds the same multiple of the same input to a unit's weights and
of 1 to its bias, also with momentum and FedProx.
"""

import warnings

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.inversion.applicable import check_inputs
from adversary.inversion.evidence import UNVERIFIED
from adversary.inversion.fully_connected import first_layer, ratios
from adversary.inversion.reading import batch_gradient, batch_size, mean_gradient
from adversary.inversion.verification import held_to_upload
from adversary.labels.head import input_shape
from fedsim.core.errors import Remark
from fedsim.core.types import Auxiliary, View

TWO = "may mix examples: of two classes units agree on mixtures, too"


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
        ValueError: The first layer is not linear with a bias, or the client took several steps on
            several examples.
    """
    weight, bias, count = _layer(view, auxiliary)
    recovered = ratios(weight, bias, count)
    two = auxiliary.num_classes == 2
    mixed = len(recovered.inputs) if two else int((recovered.units == 1).sum())
    if count > 1 and mixed:
        rule = TWO if two else "stand on one unit alone, which may mix examples"
        warnings.warn(f"{mixed} of {count} inputs {rule}: {UNVERIFIED}", Remark, stacklevel=2)
    return recovered.inputs.view(-1, *input_shape(auxiliary))


def agreed(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, "n *shape"]:
    """Return those inputs of `analytic` that at least two units agree on.

    These are exact, unless a defense changed entries or there are two classes: then units on which
    the same examples are active agree, and nothing is returned but as many inputs as examples.
    Zeros are left out, on which units agree whose weights' gradients were cut, and of signs alone
    nothing is taken.

    Args:
        view: As for `analytic`.
        auxiliary: The architecture.
        generator: Not used.

    Raises:
        ValueError: As for `analytic`, no two units agree, or the update is of signs; there are two
            classes, and fewer inputs than examples.
    """
    weight, bias, count = _layer(view, auxiliary)
    sizes = weight[weight != 0].abs()
    if len(bias) > 1 and bool((sizes == sizes[:1]).all()):
        raise ValueError("update: must have more than the signs of a gradient, got one size")
    recovered = ratios(weight, bias, count)
    inputs = recovered.inputs[(recovered.units > 1) & recovered.inputs.any(dim=1)]
    if not len(inputs):
        raise ValueError("units: two must agree on an example, got none")
    if auxiliary.num_classes == 2 and len(inputs) < count:
        raise ValueError(f"units: {len(inputs)} of {count} inputs {TWO}")
    return inputs.view(-1, *input_shape(auxiliary))


def _layer(view: View, auxiliary: Auxiliary) -> tuple[Tensor, Tensor, int]:
    """Return the gradients of the first layer's weights and biases, and how many examples."""
    check_inputs(view, auxiliary)
    latest, count = view.latest, batch_size(view.latest)
    reading = mean_gradient if count == 1 else batch_gradient  # of one the same in every step
    return *first_layer(reading(latest, auxiliary), auxiliary), count


ATTACKS = (
    Attack(
        name="analytic",
        family="reconstruction",
        on_device=True,
        infer=held_to_upload(analytic),
        summary="inputs of a fully connected first layer, by ratios of gradients",
        reads="first layer",
        has_twin=False,
    ),
)
