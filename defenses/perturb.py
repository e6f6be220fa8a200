"""Adversarial perturbation: move the update where a surrogate attacker guesses wrong."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from defenses.defense import Defense
from defenses.examples import example_gradients, flat_rows
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.sgd import gradients
from fedsim.core.types import LocalTraining, Params

RIDGE = 1e-3  # of the mean eigenvalue, so that the surrogate can be fitted at all


def perturb(*, strength: float = 0.1, shadows: int = 64) -> Defense:
    """Move every batch's gradient against a linear surrogate that guesses its label shares.

    The surrogate is the client's own: it is fitted on the client's examples, which the adversary
    never has. Shadow batches are random mixtures of the batch's examples; ridge regression from
    their gradients to their label shares gives f, and the gradient g moves by strength·‖g‖ along
    the direction that brings every guessed share nearer to even, g − ε‖g‖·Aᵀsgn(f(g) − 1/C)/‖·‖.
    fedsim's own form of the adversarial perturbation in Li et al., "Analyzing Inference Privacy
    Risks Through Gradients in Machine Learning", CCS 2024, whose body is not at hand. It promises
    nothing: whoever knows the rule can rehearse it.

    Args:
        strength: Length of the move, as a share of the gradient's norm; ≥ 0.
        shadows: Shadow batches per step; ≥ 2.

    Raises:
        ValueError: `strength` is negative or not finite, or there are fewer than two shadows.
    """
    if not 0 <= strength < math.inf:
        raise ValueError(f"strength: must be finite and ≥ 0, got {strength}")
    if shadows < 2:
        raise ValueError(f"shadows: must be at least 2, got {shadows}")

    return Defense(
        name="perturb",
        gradient=partial(moved_gradient, strength=strength, shadows=shadows),
        apart=True,
        promise=Promise(
            statement="misleads one linear surrogate; another attacker may not follow it"
        ),
    )


def moved_gradient(
    model: nn.Module,
    parameters: Params,
    inputs: Float[Tensor, "batch *shape"],
    labels: Int[Tensor, " batch"],
    local: LocalTraining,
    generator: Generator,
    *,
    strength: float,
    shadows: int,
) -> Sequence[Tensor]:
    """Return the batch gradient, moved against the surrogate."""
    smoothing = local.label_smoothing
    each = example_gradients(model, parameters, inputs, labels, label_smoothing=smoothing)
    flat = [flat_rows(g).double() for g in each.values()]
    gram = torch.stack([g @ g.T for g in flat]).sum(dim=0)
    logits = model(inputs)
    shares = functional.one_hot(labels, logits.shape[1]).double()
    weights = moved(gram, shares, strength, shadows, generator).to(logits.dtype)
    losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    return gradients((weights * losses).sum(), parameters)


def moved(
    gram: Float[Tensor, "batch batch"],
    shares: Float[Tensor, "batch classes"],
    strength: float,
    shadows: int,
    generator: Generator,
) -> Float[Tensor, " batch"]:
    """Return the weights of the examples whose weighted gradient is the moved one.

    All of it lies in the span of the examples' gradients Γ: the mean gradient is Γᵀ1/B, and the
    direction of the surrogate Γᵀc.

    Args:
        gram: ΓΓᵀ.
        shares: One-hot labels.
        strength: Length of the move relative to the mean gradient.
        shadows: How many random mixtures the surrogate is fitted on.
        generator: Draws them.
    """
    size, classes = shares.shape
    even = torch.full((size,), 1 / size, dtype=torch.float64)
    draws = torch.rand(shadows, size, generator=generator, dtype=torch.float64).clamp(min=1e-12)
    mixtures = -draws.log()  # exponential: normalised, they are even on the simplex
    mixtures = mixtures / mixtures.sum(dim=1, keepdim=True)
    middle = mixtures.mean(dim=0)
    around, targets = mixtures - middle, (mixtures - middle) @ shares
    kernel = around @ gram @ around.T
    ridge = RIDGE * float(kernel.diagonal().mean()) + 1e-30
    kernel.diagonal().add_(ridge)
    solved = torch.linalg.solve(kernel, targets)
    guess = middle @ shares + solved.T @ (around @ (gram @ (even - middle)))
    direction = around.T @ (solved @ (guess - 1 / classes).sign())
    length = float(direction @ gram @ direction)
    if length <= 0:  # one example, or examples that are all alike
        return even
    return even - strength * math.sqrt(float(even @ gram @ even) / length) * direction


DEFENSE = Entry("perturb", perturb, paper="after Li et al., CCS 2024")
