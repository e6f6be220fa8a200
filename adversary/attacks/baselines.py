"""Two guesses that look at no update: what they score, no update has leaked.

Idea: `random` draws every label evenly, which is the chance level of the label papers; `uniform`
names every class equally often, which on average is the best that can be said of evenly
distributed labels.

*Server must know*: the number of examples, and for uploaded weights the number of epochs.
*Exact when*: by luck; `uniform` where all classes are equally frequent.
*Differs from the paper*: nothing; the random guess of LLG and its followers.
"""

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.labels.counts import in_turn
from adversary.steps import num_labels
from fedsim.core.types import Auxiliary, View


def random(view: View, auxiliary: Auxiliary, generator: Generator) -> Int[Tensor, " classes"]:
    """Return the counts of labels drawn evenly.

    Args:
        view: One client's observations; only the latest one's number of labels is read.
        auxiliary: The number of classes.
        generator: Draws the labels.
    """
    classes = auxiliary.num_classes
    labels = torch.randint(classes, (num_labels(view.latest),), generator=generator)
    return torch.bincount(labels, minlength=classes)


def uniform(view: View, auxiliary: Auxiliary, generator: Generator) -> Int[Tensor, " classes"]:
    """Return counts as even as possible.

    Args:
        view: One client's observations; only the latest one's number of labels is read.
        auxiliary: The number of classes.
        generator: Draws the classes that get one more than others.
    """
    classes = auxiliary.num_classes
    order = torch.randperm(classes, generator=generator)
    return in_turn(order, num_labels(view.latest), classes)


ATTACKS = (
    Attack(
        name="random",
        family="label",
        infer=random,
        summary="every label at random",
        baseline=True,
    ),
    Attack(
        name="uniform",
        family="label",
        infer=uniform,
        summary="all classes equally often",
        baseline=True,
    ),
)
