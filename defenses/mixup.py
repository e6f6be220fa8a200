"""Mixup: a client trains on mixtures of its examples, so that no update is of one alone."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from defenses.defense import Defense
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.sgd import gradients
from fedsim.core.types import LocalTraining, Params


def mixup(*, alpha: float = 0.2) -> Defense:
    """Mix every batch with itself in another order, inputs and labels alike.

    Source: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization",
    ICLR 2018, section 2: λ ~ Beta(α, α), one for the batch. Meant for generalisation; it promises
    no privacy, and the label counts of a batch are in the loss as before.

    Args:
        alpha: Of the Beta distribution; the larger, the nearer to even mixtures; > 0.

    Raises:
        ValueError: `alpha` is not positive and finite.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha: must be finite and > 0, got {alpha}")

    def gradient(
        model: nn.Module,
        parameters: Params,
        inputs: Float[Tensor, "batch *shape"],
        labels: Int[Tensor, " batch"],
        local: LocalTraining,
        generator: Generator,
    ) -> Sequence[Tensor]:
        share = mixing_share(alpha, generator)
        order = torch.randperm(len(labels), generator=generator)
        logits = model(share * inputs + (1 - share) * inputs[order])
        losses = [
            functional.cross_entropy(logits, y, label_smoothing=local.label_smoothing)
            for y in (labels, labels[order])
        ]
        loss = share * losses[0] + (1 - share) * losses[1]
        return gradients(loss, parameters)

    statement = "blurs single examples; labels and class means stay"
    promise = Promise(statement=statement)
    return Defense(name="mixup", gradient=gradient, promise=promise, kinds=("values",))


def mixing_share(alpha: float, generator: Generator) -> float:
    """Return λ ~ Beta(α, α)."""
    seed = int(torch.randint(2**62, (1,), generator=generator))  # torch draws no Beta from one
    return float(np.random.default_rng(seed).beta(alpha, alpha))


DEFENSE = Entry("mixup", mixup, paper="Zhang, Cisse, Dauphin, Lopez-Paz, ICLR 2018")
