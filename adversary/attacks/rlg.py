"""RLG: the set of labels, from directions that separate one class from all others.

T. Dang, O. Thakkar, S. Ramaswamy, R. Mathews, P. Chin, F. Beaufays, "Revealing and Protecting
Labels in Distributed Training", NeurIPS 2021.

Idea: the head's weight gradient is (P − Y)ᵀH, so its singular vectors span the rows of P − Y: there
is one coordinate vector q_c a class. An example of class c is a row that is negative at c and
positive everywhere else, hence some direction r has r·q_c < 0 and r·q_j ≥ 0 for all other j. A
class is named where there is such a direction.

*Server must know*: the update, and the number of examples to turn the set into counts.
*Exact when*: one step, fewer labels than C − 1 and than features, linearly independent features; a
class that is there is then always found, and others only by chance.
*Differs from the paper*: counts are asked for here, and the paper gives presence only: each class
found gets one label and then one more in turn, the most likely first (lowest bias gradient, or row
sum); with fewer labels than classes found, the most likely get one. From rank C − 1 on (about as
many labels as classes) every class can be separated and the set says nothing: all classes count
as found, and likewise where none is. Whether there is a direction is decided by non-negative least
squares, with the same answer as the paper's linear program after its Perceptron, 8 to 40 times
faster.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.labels.counts import in_turn
from adversary.labels.head import read_head
from adversary.workspace import workspace
from fedsim.core.types import Auxiliary, View


def rlg(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    tolerance: float = 1e-4,
) -> Int[Tensor, " classes"]:
    """Return label counts, even over the classes found.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture and the number of classes.
        generator: Not used: the answer is deterministic.
        tolerance: Singular values up to this share of the largest, and distances up to this share
            of a vector's length, count as 0; for gradients in single precision.

    Raises:
        ValueError: The model has no linear head, or its gradient is not finite.
    """
    head = read_head(view.latest, workspace(view, auxiliary))
    classes = auxiliary.num_classes
    vectors, values, _ = torch.linalg.svd(head.observed, full_matrices=False)
    rank = min(int((values > tolerance * values[0]).sum()), head.total)
    evidence = head.row_sums if head.bias is None else head.bias
    order = evidence.sort(stable=True).indices
    present = torch.ones(classes, dtype=torch.bool)
    if 0 < rank < classes - 1:
        present = separable(vectors[:, :rank].double(), tolerance)
    return in_turn(order[present[order]] if present.any() else order, head.total, classes)


def separable(
    q: Float[Tensor, "classes rank"], tolerance: float = 1e-9
) -> Bool[Tensor, " classes"]:
    """Return for which c there is an r with r·q_c < 0 and r·q_j ≥ 0 for all other j.

    By Farkas' lemma there is one unless q_c lies in the cone of the others, that is, is at distance
    0 from it; and non-negative least squares finds that distance faster than a program finds r.

    Args:
        q: A vector for each class.
        tolerance: Distances up to this share of q_c's length count as 0.
    """
    from scipy.optimize import nnls

    vectors = q.T.numpy()
    classes = vectors.shape[1]
    present = torch.zeros(classes, dtype=torch.bool)
    others = np.ones(classes, dtype=bool)
    for c in range(classes):
        others[c] = False
        _, distance = nnls(vectors[:, others], vectors[:, c], maxiter=30 * classes)
        others[c] = True
        present[c] = bool(distance > tolerance * np.linalg.norm(vectors[:, c]))
    return present


ATTACKS = (
    Attack(
        name="rlg",
        family="label",
        infer=rlg,
        reads="head",
        summary="the set of classes that a direction separates",
    ),
)
