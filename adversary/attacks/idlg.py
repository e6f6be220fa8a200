"""iDLG: the label of a single example, read off its gradient.

B. Zhao, K. R. Mopuri, H. Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020,
arXiv 2001.02610, Eq. 3 to 5.

Idea: with cross-entropy the gradient of logit i is p_i − 1[y = i], negative for the true label
alone. The head's row i is that number times the features, so the true label's row points against
every other row; the bias gradient is that number itself.

*Server must know*: the update.
*Exact when*: one example and one step, any model with a linear head and any activation; without a
bias, two classes need non-negative features.
*Differs from the paper*: for more than one label, which the paper does not treat, its one answer
is repeated. The public code of several peers returns the ground truth or only distinct labels
there; this does neither.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.labels.head import read_head
from adversary.labels.heads import read_heads
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View


def idlg(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Int[Tensor, " classes"]:
    """Return all labels on one class.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture and the number of classes.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The model has no linear head.
    """
    head = read_head(view.latest, workspace(view, auxiliary))
    if head.bias is not None:
        label = int(head.bias.argmin())
    else:
        rows = head.weight
        agreement = rows @ rows.T
        agreement.fill_diagonal_(-torch.inf)
        # The row that agrees least with its best friend; equal (two classes): the lower sum.
        scores = torch.stack([agreement.amax(dim=1), rows.sum(dim=1)], dim=1).tolist()
        label = min(range(len(rows)), key=scores.__getitem__)
    counts = torch.zeros(auxiliary.num_classes, dtype=torch.long)
    counts[label] = head.total
    return counts


def idlg_all(views: Sequence[View], auxiliary: Auxiliary) -> Int[Tensor, "n classes"]:
    """Return iDLG's answer to each view.

    Args:
        views: Of one round.
        auxiliary: As for `idlg`.

    Raises:
        ValueError: It may have none to one of them, or the head has no bias, without which they are
            read one by one.
    """
    heads = read_heads(views, auxiliary)
    if heads.bias is None:
        raise NotApplicable("model: must have a head with a bias to answer many views, got none")
    labels = heads.bias.argmin(dim=1, keepdim=True)
    counts = torch.zeros(len(views), auxiliary.num_classes, dtype=torch.long)
    return counts.scatter(1, labels, heads.total.unsqueeze(1))


ATTACKS = (
    Attack(
        name="idlg",
        family="label",
        infer=idlg,
        infer_all=idlg_all,
        reads="head",
        summary="the one label of a single-example gradient",
    ),
)
