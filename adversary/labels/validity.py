"""How far one local step throws the head: whether the sum of several steps can be read at all."""

import torch

from adversary.labels.head import find_head, forward, noise_inputs
from adversary.workspace import Workspace

LIMIT = 2.0
EXAMPLES = 32  # whose mean is close enough for a warning: a forward pass of them in every round


def validity_number(work: Workspace) -> float:
    """Return lr·E[‖h‖² + 1], how far one step moves the logits of its own example.

    Far below 1, all local steps see about the same probabilities, and the sum of their gradients
    says how many labels of each class there were. Beyond `LIMIT` a step overshoots: the next one
    answers its error and no longer the labels, and every label attack is poor.

    Args:
        work: Its auxiliary inputs stand for the clients'; uniform noise where there are none.

    Raises:
        ValueError: The model has no linear head.
    """
    find_head(work)
    inputs = work.auxiliary.inputs
    if inputs is None:
        inputs = work.lasting(noise_inputs)
    some = torch.linspace(0, len(inputs) - 1, min(len(inputs), EXAMPLES)).long()
    outputs = forward(work, work.sent, inputs[some])
    squares = outputs.features.double().square().sum(dim=1)
    return work.local.lr * (float(squares.mean()) + 1)
