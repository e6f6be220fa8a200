"""Adversarial perturbation: move the update where a surrogate attacker guesses wrong.

Z. Li, A. Lowy, J. Liu, T. Koike-Akino, K. Parsons, B. Malin, Y. Wang, "Analyzing Inference Privacy
Risks Through Gradients in Machine Learning", CCS 2024, name it as one of five defenses. Their body
was not at hand: this is fedsim's own form, g − ε‖g‖·d, where d moves the guess of a linear
surrogate f at g towards what it guesses of anybody.

The surrogate needs records whose secret the defender knows. Of labels these are the client's own
batch. Of another secret they are records that the defender alone holds (`against`): an adversary
that fits its own surrogate has other records, and another d.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from defenses.defense import Defense, Marked
from defenses.promise import Promise
from defenses.surrogate import Surrogate
from fedsim.core.catalog import Entry
from fedsim.core.examples import example_gradients, flat_rows
from fedsim.core.sgd import gradients, mean_gradient
from fedsim.core.types import LocalTraining, Params

TINY = 1e-12  # squared length of a direction that rounding may explain
RIDGE = 1e-3  # of the mean eigenvalue, so that the surrogate can be fitted at all


def perturb(*, strength: float = 0.1, shadows: int = 64, records: int = 256) -> Defense:
    """Move every batch's gradient against a linear surrogate that guesses its secret.

    Of labels: shadow batches are random mixtures of the batch's examples; ridge regression from
    their gradients to their label shares gives f, and the gradient g moves by strength·‖g‖ along
    the direction that brings every guessed share nearer to even, g − ε‖g‖·Aᵀsgn(f(g) − 1/C)/‖·‖.
    A batch of one label is joined by its examples under another label.

    Of another secret (`Defense.against`, as `fedsim game` has it): ridge regression from gradients
    of the defender's marked records, at the client's weights, to their marks gives f, and g moves
    towards f's mean over them. It promises nothing: whoever knows the rule can rehearse it.

    Args:
        strength: Length of the move, as a share of the gradient's norm; ≥ 0.
        shadows: Shadow batches per step, of labels; ≥ 2.
        records: Marked records whose gradients the surrogate is fitted on, at most; ≥ 2. All of
            them are in memory at once.

    Raises:
        ValueError: `strength` is negative or not finite, or there are fewer than two shadows or
            records.
    """
    if not 0 <= strength < math.inf:
        raise ValueError(f"strength: must be finite and ≥ 0, got {strength}")
    if shadows < 2:
        raise ValueError(f"shadows: must be at least 2, got {shadows}")
    if records < 2:
        raise ValueError(f"records: must be at least 2, got {records}")

    of_labels = Defense(
        name="perturb",
        gradient=partial(moved_gradient, strength=strength, shadows=shadows),
        apart=True,
        kinds=("values",),
        promise=Promise(
            statement="misleads one linear surrogate; another attacker may not follow it"
        ),
    )

    def against(marked: Marked) -> Defense:
        surrogate = Surrogate(marked, records)
        hook = partial(misleading_gradient, surrogate=surrogate, strength=strength)
        return replace(of_labels, gradient=hook, against=against)

    return replace(of_labels, against=against)


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
    """Return the batch gradient, moved against the surrogate of its labels."""
    smoothing, size = local.label_smoothing, len(labels)
    if len(labels.unique()) == 1:  # nothing to tell apart
        inputs, labels = _with_other_labels(inputs, labels, model(inputs).shape[1], generator)
    each = example_gradients(model, parameters, inputs, labels, label_smoothing=smoothing)
    flat = [flat_rows(g).double() for g in each.values()]
    gram = torch.stack([g @ g.T for g in flat]).sum(dim=0)
    logits = model(inputs)
    shares = functional.one_hot(labels, logits.shape[1]).double()
    weights = moved(gram, shares, strength, shadows, generator, size=size).to(logits.dtype)
    losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    return gradients((weights * losses).sum(), parameters)


def _with_other_labels(
    inputs: Tensor, labels: Tensor, classes: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Return examples, and the same once more under another label each."""
    others = torch.randint(1, max(2, classes), labels.shape, generator=generator)
    return torch.cat([inputs, inputs]), torch.cat([labels, (labels + others) % classes])


def moved(
    gram: Float[Tensor, "batch batch"],
    shares: Float[Tensor, "batch classes"],
    strength: float,
    shadows: int,
    generator: Generator,
    *,
    size: int,
) -> Float[Tensor, " batch"]:
    """Return the weights of the examples whose weighted gradient is the moved one.

    All of it lies in the span of the examples' gradients Γ: the mean gradient is that of the first
    B of them, and the direction of the surrogate Γᵀc.

    Args:
        gram: ΓΓᵀ.
        shares: One-hot labels.
        strength: Length of the move relative to the mean gradient.
        shadows: How many random mixtures the surrogate is fitted on.
        generator: Draws them.
        size: B.
    """
    count, classes = shares.shape
    even = torch.zeros(count, dtype=torch.float64)
    even[:size] = 1 / size
    draws = torch.rand(shadows, count, generator=generator, dtype=torch.float64).clamp(min=1e-12)
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
    rounding = TINY * float(gram.diagonal().max()) * float(direction.abs().sum()) ** 2
    if length <= rounding:  # gradients that are all alike
        return even
    return even - strength * math.sqrt(float(even @ gram @ even) / length) * direction


def misleading_gradient(
    model: nn.Module,
    parameters: Params,
    inputs: Float[Tensor, "batch *shape"],
    labels: Int[Tensor, " batch"],
    local: LocalTraining,
    generator: Generator,
    *,
    surrogate: Surrogate,
    strength: float,
) -> Sequence[Tensor]:
    """Return the batch gradient, moved against the surrogate of the defender's marked records."""
    plain = mean_gradient(model, parameters, inputs, labels, local, generator)
    flat = torch.cat([value.flatten() for value in plain]).double()
    linear = surrogate.at(model, parameters, local.label_smoothing)
    guess = (flat - linear.mean) @ linear.slopes
    direction = linear.slopes @ guess.sign()
    length = float(direction.norm())
    if length > 0:  # 0 where gradients of all marks are alike
        flat = flat - strength * float(flat.norm()) / length * direction
    parts = flat.to(plain[0].dtype).split([value.numel() for value in plain])
    return [part.view_as(value) for part, value in zip(parts, plain, strict=True)]


DEFENSE = Entry("perturb", perturb, paper="after Li et al., CCS 2024")
