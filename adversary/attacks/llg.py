"""LLG: label leakage from gradients, in its gradients-only form.

A. Wainakh, F. Ventola, T. Müßig, J. Keim, C. Garcia Cordero, E. Zimmer, T. Grube, K. Kersting,
M. Mühlhäuser, "User-Level Label Leakage from Gradients in Federated Learning", PoPETs 2022(2);
after its official code, github tklab-tud/LLG, `Predictor.py`.

Idea: with non-negative features h the row sum g_i of the head's weight gradient can be negative
only if class i is in the batch (property 1), and g_i ≈ n_i·m + s_i with an impact m < 0 of one
label (property 2). Classes with g_i < 0 get one label each; the rest go one by one to the lowest
g_i, each label raising its class by |m|.

*Server must know*: the update, the number of examples, and for uploaded weights the learning
rate, batch size and epochs.
*Exact when*: there is one label, or all labels are of one class and the untrained model's
predictions are uniform; approximately for untrained models with non-negative features and batches
of few classes. m shrinks to nothing as a batch becomes balanced, and with signed features (tanh)
property 1 does not hold.
*Differs from the code*: the loop is a closed form (`waterfill`); the most negative classes come
first where there are more of them than labels, so that the counts always add up; where no class is
negative, so that m = 0, the labels are spread evenly instead of all going to one class.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.counts import waterfill
from adversary.head import find_head, num_labels, weight_gradient
from fedsim.types import Auxiliary, View


def llg(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    scale: Literal["paper", "exact"] = "paper",
) -> Int[Tensor, " classes"]:
    """Return label counts that add up to the number of labels used.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture and the number of classes.
        generator: Not used: the answer is deterministic.
        scale: Correction of the impact for the correct class's own probability: the paper's
            (1 + 1/C), or C/(C − 1), which is exact for a single-class batch of an untrained
            model. They differ by 1/C²: 1 % at ten classes, 25 % at two.

    Raises:
        ValueError: The model has no linear head, or its gradient is not finite.
    """
    classes, total = auxiliary.num_classes, num_labels(view.latest)
    weight = weight_gradient(view.latest, find_head(auxiliary.model, classes))
    g = weight.double().sum(dim=1)
    if not torch.isfinite(g).all():
        raise ValueError("llg: the head's gradient must be finite, got NaN or infinity")
    m = impact(g, total, scale)
    present = torch.zeros(classes, dtype=torch.long)
    present[g.sort(stable=True).indices[: min(int((g < 0).sum()), total)]] = 1
    return present + waterfill(g - m * present, -m, total - int(present.sum()))


def impact(
    g: Float[Tensor, " classes"], total: int, scale: Literal["paper", "exact"] = "paper"
) -> float:
    """Return m ≤ 0, how far one label moves its class's row sum: the negative sums per label."""
    classes = len(g)
    factor = 1 + 1 / classes if scale == "paper" else classes / (classes - 1)
    return factor * float(g[g < 0].sum()) / total
