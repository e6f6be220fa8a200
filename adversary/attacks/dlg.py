"""DLG and iDLG: the inputs (and labels) whose gradient is at the least distance from the client's.

L. Zhu, Z. Liu, S. Han, "Deep Leakage from Gradients", NeurIPS 2019, algorithm 1. B. Zhao, K. R.
Mopuri, H. Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020: labels from the head first.

Idea: begin with noise and go downhill by L-BFGS on ‖g(x, y) − g‖². DLG fits labels as logits
beside the inputs, iDLG leaves them at what the head's gradient tells.

*Server must know*: the weights sent, the update, the number of examples, the protocol.
*Exact when*: the gradient determines the batch and the descent does not stick: smooth activations,
weights large enough, B small.
*Differs from the papers*:
- The official code goes on where a step of length 1 makes the loss larger, and half of its runs end
  in NaN or far away (4 of 8 pictures measured); here such a step is halved.
- Several restarts go downhill together, and the one with the lowest loss is the answer.
- Uploaded weights are matched too, by simulating the local steps; labels of larger batches are
  those of `adversary.attacks.batch_labels`.
"""

from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.batch_labels import batch_labels
from adversary.inversion.matching import reconstruct
from adversary.inversion.problems import cost_of_matching
from adversary.inversion.settings import Settings
from fedsim.core.ranges import AtLeastOne, NotNegative
from fedsim.core.types import Auxiliary, Estimate, View


def dlg(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    labels: Literal["joint", "recovered"] = "joint",
    restarts: AtLeastOne = 4,
    iterations: AtLeastOne = 1500,
    tv: NotNegative = 0.0,
) -> Float[Tensor, "n *shape"] | Estimate:
    """Return the examples of the restart with the lowest loss, with the spread of restarts.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Draws where restarts begin.
        labels: Fitted with the inputs (DLG), or from a label attack (iDLG).
        restarts: Descents; ≥ 1.
        iterations: Evaluations of the loss for each, of which the papers' code takes up to 20 per
            iteration of its own; ≥ 1.
        tv: Weight of the total variation; ≥ 0. The papers have none.

    Raises:
        ValueError: As for `adversary.inversion.matching.reconstruct`, or an option out of range.
    """
    settings = Settings(
        distance="l2",
        optimiser="lbfgs",
        iterations=iterations,
        restarts=restarts,
        tv=tv,
        box=False,
        start="normal",
    )
    recover = batch_labels if labels == "recovered" else None
    return reconstruct(view, auxiliary, generator, settings, recover=recover)


ATTACKS = (
    Attack(
        name="dlg",
        family="reconstruction",
        on_device=True,
        infer=dlg,
        summary="inputs and labels with the client's gradient, by L-BFGS",
        cost=cost_of_matching,
        has_twin=False,
    ),
    Attack(
        name="idlg-inversion",
        family="reconstruction",
        on_device=True,
        infer=partial(dlg, labels="recovered"),
        summary="dlg with labels from a label attack",
        cost=cost_of_matching,
        has_twin=False,
    ),
)
