"""SPEAR++: larger batches behind a fully connected ReLU layer, exact.

A. Bakarsky, D. I. Dimitrov, M. Baader, M. Vechev, "SPEAR++: scaling gradient inversion via
sparsely-used dictionary learning", Regulatable ML at NeurIPS 2025, arXiv 2510.24200.

Idea: SPEAR's draws are replaced by sparsely-used dictionary learning: of all directions in the row
space of the weight gradient, those with the sparsest products with its rows belong to examples.

*Server must know*: the gradient of one step, and how many examples it is of.
*Exact when*: its answer passes SPEAR's tests; otherwise it refuses, or says what it could not test.
*Differs from the paper*: only its abstract was at hand, no code and no text. The dictionary is
learned by methods of the papers that `adversary.inversion.dictionary` names. Two things are added
there, without which natural pictures end at differences of examples of one class: the l1 norm is
taken over the units furthest below zero at a guessed input, and examples that are known are
deflated. Where 30 starts in a row add nothing, rows are drawn as in `spear`. DP noise is not
removed by filters: what it hides is refused.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.spear import checked_limits, whole_batch
from adversary.costs import Cost
from adversary.inversion.chain import first_linear
from adversary.inversion.dictionary import operations
from adversary.labels.head import input_shape
from fedsim.core.ranges import AtLeastOne, NotNegative
from fedsim.core.types import Auxiliary, View

SPEED = 2.5e10  # operations a second of one core
COPIES = 6  # of the layer's gradient, in 64 bits
LABELLED = 4  # tensors of a unit, an example and a label


def spear_plus_plus(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    draws: AtLeastOne = 20_000,
    seconds: NotNegative = 0.0,
    resume: str = "",
) -> Float[Tensor, "n *shape"]:
    """Return all inputs of the batch, in any order, float64.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Of the starts and draws.
        draws: How many starts and draws at most. The search ends before where the rate of success
            so far says that they will not be enough.
        seconds: CPU time of the search at most, 0 for any; answers then depend on the machine.
        resume: A folder. An unfinished search leaves its examples' zeros there; a later one of the
            same gradient goes on from them.

    Raises:
        ValueError: The first layer is not linear with a bias and ReLU, the client took several
            steps, or no answer passes.
    """
    limits = checked_limits("spear-plus-plus", draws, seconds)
    return whole_batch(view, auxiliary, generator, limits=limits, resume=resume, learn=True)


def _cost(auxiliary: Auxiliary, count: int, options: Mapping[str, Any]) -> Cost:  # noqa: ARG001
    """Return what the search costs where it succeeds, and the gradients of all labels after it."""
    shape = input_shape(auxiliary)
    weight = auxiliary.model.get_parameter(f"{first_linear(auxiliary.model, shape)}.weight")
    labelled = count * auxiliary.num_classes * (prod(shape) + LABELLED * len(weight))
    entries = COPIES * weight.numel() + labelled
    return Cost(operations(count) / SPEED, 8.0 * entries)


ATTACKS = (
    Attack(
        name="spear-plus-plus",
        family="reconstruction",
        on_device=True,
        infer=spear_plus_plus,
        summary="a whole larger batch behind a fully connected ReLU layer, exact",
        has_twin=False,
        cost=_cost,
    ),
)
