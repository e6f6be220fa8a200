"""How far one local step throws the head: whether the sum of several steps can be read at all."""

import torch

from adversary.labels.head import forward, noise_forward
from fedsim.core.types import Auxiliary, LocalTraining, Params

LIMIT = 2.0
EXAMPLES = 200  # whose mean is close enough for a warning


def validity_number(auxiliary: Auxiliary, sent: Params, local: LocalTraining) -> float:
    """Return lr·E[‖h‖² + 1], how far one step moves the logits of its own example.

    Far below 1, all local steps see about the same probabilities, and the sum of their gradients
    says how many labels of each class there were. Beyond `LIMIT` a step overshoots: the next one
    answers its error and no longer the labels, and every label attack is poor.

    Args:
        auxiliary: Its inputs stand for the clients'; uniform noise where there are none.
        sent: The global weights.
        local: The learning rate.

    Raises:
        ValueError: The model has no linear head.
    """
    inputs = auxiliary.inputs
    if inputs is None:
        there = noise_forward(auxiliary, sent)
    else:
        some = torch.linspace(0, len(inputs) - 1, min(len(inputs), EXAMPLES)).long()
        there = forward(auxiliary, sent, inputs[some])
    squares = there.features.double().square().sum(dim=1)
    return local.lr * (float(squares.mean()) + 1)
