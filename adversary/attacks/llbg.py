"""LLBG: label leakage from bias gradients.

N. Gat, M. Sharif, "Harmful Bias: A General Label-Leakage Attack on Federated Learning from Bias
Gradients", AISec 2024; after its official code, github nadbag98/LLBG, `base_attack.py`.

Idea: LLG's extraction on the head's bias gradient, where features play no part: an entry is
b_i = Σ_s (p_si − [y_s = i]). One label adds m_i = −(1 − conf_i) to its class, where conf is the
probability of a label's own class, and the other examples add about N/C to all. Classes with
b_i < 0 are surely there and get one label each; the rest go one by one to the lowest entry, which
rises by |m_i|.

*Server must know*: the update, the number of examples, and for uploaded weights the learning rate,
batch size and epochs; with `confidence="auxiliary"` the weights sent and labelled auxiliary data.
*Exact when*: all predictions are uniform (an untrained head), for any features and activation.
*Differs from the paper and its code*: over several steps N counts all labels used; the loop is a
closed form; the most negative classes come first where there are more of them than labels. The
offset N/C, the same for all, changes no answer and is left out, as in the code. A class of
confidence 1, which could take any number of labels, counts as one of 0.999. Label smoothing, not
treated there, is taken out. A head without a bias, not treated there, is read by the sums of its
rows, weighted by the mean features of auxiliary inputs, or of noise (`read_residuals`): the model
is run for these.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.labels.head import auxiliary_forward
from adversary.labels.reading import read_residuals
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View

Confidence = Literal["none", "auxiliary"]


def llbg(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    confidence: Confidence = "none",
) -> Int[Tensor, " classes"]:
    """Return label counts, from the bias gradient.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture and the number of classes.
        generator: Not used: the answer is deterministic.
        confidence: The probability of a label's own class: 0, as for an untrained model, or the
            class's mean over auxiliary data.

    Raises:
        ValueError: The model has no linear head, its gradient is not finite, or auxiliary data
            are asked for and not there.
    """
    work = workspace(view, auxiliary)
    residuals = read_residuals(view.latest, work)
    level, total = residuals.sums, residuals.head.total
    rise = torch.full_like(level, residuals.hit)
    if confidence == "auxiliary":
        if auxiliary.inputs is None or auxiliary.labels is None:
            raise NotApplicable("llbg.confidence: auxiliary needs inputs and labels, got none")
        rise -= work.part(_confidence)
    rise = rise.clamp(min=1e-3)
    first = level.sort(stable=True).indices[:total]
    present = torch.zeros_like(level, dtype=torch.long)
    present[first] = (level[first] < 0).long()
    return present + fill(level + present * rise, rise, total - int(present.sum()))


def fill(
    level: Float[Tensor, " classes"], rise: Float[Tensor, " classes"], total: int
) -> Int[Tensor, " classes"]:
    """Hand out units one by one to the lowest level, which rises by a step of its own."""
    classes = len(level)
    heights, order = level.sort(stable=True)
    width = 1 / rise[order]
    # Were units water, this is how high `total − C` of them would reach. Rounding up gives out at
    # most C more, and none that the loop would not.
    reach = ((heights * width).cumsum(0) + max(total - classes, 0)) / width.cumsum(0)
    counts = ((reach.min() - level) / rise - 1e-9).ceil().clamp(min=0).long()
    for _ in range(total - int(counts.sum())):
        counts[(level + counts * rise).argmin()] += 1
    return counts


def _confidence(work: Workspace) -> Float[Tensor, " classes"]:
    """Return the mean probability of each class on its auxiliary examples; of all without any."""
    labels = work.auxiliary.labels
    assert labels is not None
    p = work.part(auxiliary_forward).probabilities
    of_labels = p.gather(1, labels.unsqueeze(1))[:, 0]
    counts = torch.bincount(labels, minlength=p.shape[1])
    sums = torch.zeros(p.shape[1], dtype=p.dtype).index_add_(0, labels, of_labels)
    return torch.where(counts > 0, sums / counts.clamp(min=1), of_labels.mean())


ATTACKS = (
    Attack(
        name="llbg",
        family="label",
        infer=llbg,
        reads="head",
        summary="LLG on the bias gradient",
    ),
)
