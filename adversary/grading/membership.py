"""Membership of candidates, and of ranges: which records a client used."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.members.scores import within_classes
from fedsim.core.ground_truth import Truth
from fedsim.core.types import Auxiliary, View


def blind_members(
    view: View,  # noqa: ARG001
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " m"]:
    """Score every candidate alike: within a class, nothing but the update tells them apart."""
    candidates = auxiliary.candidates
    return torch.zeros(0 if candidates is None else len(candidates.labels), dtype=torch.float64)


def grade_members(guess: Tensor, truth: Truth) -> dict[str, float]:
    """Grade scores of membership within classes, so that knowing a client's labels buys nothing.

    Args:
        guess: A real score per candidate, higher for a member, shape (m,).
        truth: With members and classes.

    Returns:
        `auroc` and `advantage`, as `adversary.members.scores.within_classes`.
    """
    if truth.members is None or truth.classes is None:
        return {"auroc": math.nan, "advantage": math.nan}
    return within_classes(guess, truth.members, truth.classes)


def blind_ranges(
    view: View,  # noqa: ARG001
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " m"]:
    """Score every range alike."""
    ranges = auxiliary.ranges
    return torch.zeros(0 if ranges is None else len(ranges.labels), dtype=torch.float64)


def grade_ranges(guess: Tensor, truth: Truth) -> dict[str, float]:
    """Grade whether ranges with an example that the client used score above others of the class.

    Args:
        guess: A real score per range, higher where it holds an example used, shape (m,).
        truth: With ranges and their classes.

    Returns:
        `auroc` and `advantage`, as for membership.
    """
    if truth.ranges is None or truth.range_classes is None:
        return {"auroc": math.nan, "advantage": math.nan}
    return within_classes(guess, truth.ranges, truth.range_classes)
