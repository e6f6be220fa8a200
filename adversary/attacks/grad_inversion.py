"""GradInversion's label step: the classes with the most negative entries.

H. Yin, A. Mallya, A. Vahdat, J. M. Alvarez, J. Kautz, P. Molchanov, "See through Gradients: Image
Batch Recovery via GradInversion", CVPR 2021, Eq. 5.

Idea: with non-negative features only an example of class i makes entries of row i of the head's
weight gradient negative. The minimum over a row shows it even where the row's sum is drowned by
the other examples; the N classes with the lowest minima are named, one label each.

*Server must know*: the update and the number of examples.
*Exact when*: no label repeats, one step, non-negative features, and for every example some feature
is large where that of the other examples is not; always for one example.
*Differs from the paper*: more labels than classes, which the paper excludes, go through the same
order again and again. The reconstruction of images is not here.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.labels.counts import in_turn
from adversary.labels.head import read_head
from adversary.labels.heads import read_heads
from adversary.workspace import workspace
from fedsim.core.types import Auxiliary, View


def grad_inversion(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Int[Tensor, " classes"]:
    """Return label counts, at most one apart.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture and the number of classes.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The model has no linear head, or its gradient is not finite.
    """
    head = read_head(view.latest, workspace(view, auxiliary))
    lowest = head.weight.amin(dim=1)
    return in_turn(lowest.sort(stable=True).indices, head.total, auxiliary.num_classes)


def grad_inversion_all(views: Sequence[View], auxiliary: Auxiliary) -> Int[Tensor, "n classes"]:
    """Return the attack's answer to each view.

    Args:
        views: Of one round.
        auxiliary: As for `grad_inversion`.

    Raises:
        ValueError: It may have none to one of them.
    """
    heads, classes = read_heads(views, auxiliary), auxiliary.num_classes
    uphill = (heads.scale > 0).unsqueeze(1)
    ends = heads.observed.amin(dim=2).where(uphill, heads.observed.amax(dim=2))
    order = (ends.double() * heads.scale.unsqueeze(1)).sort(dim=1, stable=True).indices
    more = torch.arange(classes) < (heads.total % classes).unsqueeze(1)
    even = (heads.total // classes).unsqueeze(1).expand(-1, classes)
    return even.scatter_add(1, order, more.long())


ATTACKS = (
    Attack(
        name="grad-inversion",
        family="label",
        infer=grad_inversion,
        infer_all=grad_inversion_all,
        reads="head",
        summary="rows with the lowest entries, in turn",
    ),
)
