"""Sums of covariances, one of each class, under weights that change from fit to fit."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

POOLED = 2**27  # bytes of one matrix per class; beyond them all classes share one
WRITTEN = 2**23  # bytes beyond which none is written down per class where examples are few,
FEW = 25  # at most so many a class
NONE = 1e-12  # a variance that is rounding


@runtime_checkable  # types are checked in tests
class Covariances(Protocol):
    """A covariance within each class."""

    @property
    def pooled(self) -> bool:
        """Whether all classes share one."""
        ...

    def summed(self, weights: Float[Tensor, " classes"]) -> Float[Tensor, "dims dims"]:
        """Return Σ_c weights_c · covariance_c."""
        ...


@dataclass(frozen=True)
class Matrices:
    """Covariances that are written down.

    Attributes:
        each: One per class, or a single one for all classes.
    """

    each: Float[Tensor, "groups dims dims"]

    @property
    def pooled(self) -> bool:
        """Whether all classes share one."""
        return len(self.each) == 1

    def summed(self, weights: Float[Tensor, " classes"]) -> Float[Tensor, "dims dims"]:
        """Return Σ_c weights_c · covariance_c."""
        if self.pooled:
            return weights.sum() * self.each[0]
        return torch.einsum("c,cij->ij", weights, self.each)


@dataclass(frozen=True)
class Residuals:
    """Covariances of examples, summed without one matrix per class.

    Attributes:
        rest: Each example's distance to the mean of its class; in float32, whose rounding is far
            below the share of the diagonal that fits add.
        labels: Their classes.
        freedom: Examples per class less one, at least 1.
        flat: 1 for each coordinate that varies within no class, else 0: its variance.
    """

    rest: Float32[Tensor, "n dims"]
    labels: Int[Tensor, " n"]
    freedom: Float[Tensor, " classes"]
    flat: Float[Tensor, " dims"]

    @property
    def pooled(self) -> bool:
        """Whether all classes share one."""
        return False

    def summed(self, weights: Float[Tensor, " classes"]) -> Float[Tensor, "dims dims"]:
        """Return Σ_c weights_c · covariance_c."""
        each = (weights / self.freedom)[self.labels].float()
        total = (self.rest.T @ (self.rest * each.unsqueeze(1))).double()
        total.diagonal().add_(weights.sum() * self.flat)
        return total


@dataclass(frozen=True)
class Mixture:
    """Covariances that are combined.

    Attributes:
        parts: (factor, covariances).
    """

    parts: tuple[tuple[float, Covariances], ...]

    @property
    def pooled(self) -> bool:
        """Whether all classes share one."""
        return all(part.pooled for _, part in self.parts)

    def summed(self, weights: Float[Tensor, " classes"]) -> Float[Tensor, "dims dims"]:
        """Return Σ_c weights_c · covariance_c."""
        return torch.stack([factor * part.summed(weights) for factor, part in self.parts]).sum(
            dim=0
        )


def within_classes(
    shares: Float[Tensor, "n dims"], labels: Int[Tensor, " n"], classes: int
) -> tuple[Float[Tensor, "classes dims"], Covariances]:
    """Return the mean of every class and the covariances within them.

    A coordinate that varies within no class gets a variance of 1. Where each class has a matrix of
    its own, a class of one example gets the covariance of all classes together.
    """
    means = class_means(shares, labels, classes)
    rest, size = shares - means[labels], shares.shape[1]
    counts = torch.bincount(labels, minlength=classes)
    freedom = (counts.double() - 1).clamp(min=1)
    matrices = classes * size * size * rest.element_size()
    if matrices > POOLED:
        each = (rest.T @ rest / max(1, len(rest) - classes)).unsqueeze(0)
    elif matrices > WRITTEN and len(rest) <= FEW * classes:
        variances = rest.square() / freedom[labels].unsqueeze(1)
        flat = (variances.sum(dim=0) / classes < NONE).double()
        return means, Residuals(rest.float(), labels, freedom, flat)
    else:
        parts = rest[labels.argsort(stable=True)].split(counts.tolist())
        each = torch.stack([part.T @ part for part in parts]) / freedom.view(-1, 1, 1)
        if bool((counts == 1).any()):  # nothing varies within these classes alone
            each[counts == 1] = rest.T @ rest / max(1, len(rest) - int((counts > 0).sum()))
    spread = each.diagonal(dim1=1, dim2=2)
    spread.add_((spread.mean(dim=0) < NONE).double())
    return means, Matrices(each)


def class_means(
    shares: Float[Tensor, "n dims"], labels: Int[Tensor, " n"], classes: int
) -> Float[Tensor, "classes dims"]:
    """Return the mean of each class; zero for a class without examples."""
    counts = torch.bincount(labels, minlength=classes).double().clamp(min=1)
    sums = torch.zeros(classes, shares.shape[1], dtype=torch.float64)
    return sums.index_add_(0, labels, shares) / counts.unsqueeze(1)
