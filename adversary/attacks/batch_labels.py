"""The labels of a batch, for reconstructions: a label attack's answer, one entry per example."""

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.attacks.eb_gls import eb_gls
from adversary.attacks.idlg import idlg
from adversary.attacks.llg import llg
from adversary.inversion.reading import batch_size
from adversary.labels.counts import largest_remainder
from fedsim.core.types import Auxiliary, View


def batch_labels(view: View, auxiliary: Auxiliary, generator: Generator) -> Int[Tensor, " n"]:
    """Return the labels of the client's examples, in order of class.

    Of one example, the class whose head gradient points up; of several, EB-GLS where there are
    auxiliary examples, LLG where there are none.

    Raises:
        ValueError: The attack has no answer.
    """
    size = batch_size(view.latest)
    attack = llg if auxiliary.inputs is None or auxiliary.labels is None else eb_gls
    attack = idlg if size == 1 else attack
    counts = attack(view, auxiliary, generator).double()
    order = torch.arange(len(counts))
    counts = largest_remainder(counts / counts.sum(), size, order)
    return torch.arange(len(counts)).repeat_interleave(counts)
