"""What auxiliary text says of the rows of a language model's head: their moments."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

SHRINKAGE = 3.0  # auxiliary targets that the mean over all tokens counts for
FLAT = 1e-9  # share of the largest variance below which a direction holds rounding
CHUNK = 1 << 21  # probabilities at a time


@dataclass(frozen=True)
class Moments:
    """What auxiliary text says of one target's share of the head's gradient, whitened.

    Attributes:
        whiten: From features to whitened coordinates, shape (width, coordinates).
        target: Mean share of a target in its own row, shape (V, coordinates).
        other: Mean share of a target in another token's row.
        mean: The same before whitening, shape (V, width).
        spread: Variance of the features along each coordinate, shape (coordinates,).
        squares: Mean squared probability of each token where it is not the target, shape (V,).
        rates: Share of each token among targets, shape (V,).
        exposure: Number of targets, with pseudo-counts, that rates are of.
        errors: Variance of each coordinate of `target`, shape (V,).
    """

    whiten: Float[Tensor, "width coordinates"]
    target: Float[Tensor, "vocabulary coordinates"]
    other: Float[Tensor, "vocabulary coordinates"]
    mean: Float[Tensor, "vocabulary width"]
    spread: Float[Tensor, " coordinates"]
    squares: Float[Tensor, " vocabulary"]
    rates: Float[Tensor, " vocabulary"]
    exposure: float
    errors: Float[Tensor, " vocabulary"]

    @cached_property
    def between(self) -> Float[Tensor, "vocabulary coordinates"]:
        """What one more target adds to the mean of its row."""
        return self.target - self.other

    def at(self, rows: Int[Tensor, " rows"]) -> "Moments":
        """Return the moments of some tokens."""
        names = ("target", "other", "mean", "squares", "rates", "errors")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    @cached_property
    def size(self) -> float:
        """Sum of the squares of `mean`."""
        return float(torch.linalg.vector_norm(self.mean)) ** 2

    @cached_property
    def lengths(self) -> Float[Tensor, " vocabulary"]:
        """Squared norm of each row of `between`."""
        return self.between.square().sum(dim=1).clamp(min=torch.finfo(torch.float64).tiny)

    @cached_property
    def along(self) -> Float[Tensor, "vocabulary width"]:
        """What a row of a gradient is multiplied by to give the share of its token, and more."""
        return self.between @ self.whiten.T / self.lengths.unsqueeze(1)

    @cached_property
    def offset(self) -> Float[Tensor, " vocabulary"]:
        """What is more: the share that a row shows of a token that is no target."""
        return (self.other * self.between).sum(dim=1) / self.lengths


def moments(
    features: Float[Tensor, "n width"],
    weight: Float[Tensor, "vocabulary width"],
    targets: Int[Tensor, " n"],
    bias: Float[Tensor, " vocabulary"] | None = None,
) -> Moments:
    """Return the moments of a model sent, from auxiliary targets.

    Args:
        features: The head's input at each target.
        weight: The head's weight.
        targets: Token ids.
        bias: The head's bias, if it has one.

    Raises:
        ValueError: There are fewer than two targets.
    """
    if len(targets) < 2:
        raise ValueError(f"auxiliary text: must have at least 2 targets, got {len(targets)}")
    size, count = len(weight), torch.bincount(targets, minlength=len(weight)).double()
    sums, squares, share = _sums(features, weight, targets, bias)
    h = features.double()
    others = (len(h) - count).clamp(min=1)
    total = torch.zeros_like(sums).index_add_(0, targets, share)
    target = (total + SHRINKAGE * share.mean(dim=0)) / (count + SHRINKAGE).unsqueeze(1)
    within = share - (total / count.clamp(min=1).unsqueeze(1))[targets]
    freedom = max(1, len(h) - int((count > 0).sum()))
    whiten, spread = _whitening(within.T @ within / freedom, h.T @ h / len(h))
    mean = sums / others.unsqueeze(1)
    pseudo = _pseudo_count(count)
    exposure = len(h) + pseudo * size
    return Moments(
        whiten,
        target @ whiten,
        mean @ whiten,
        mean,
        spread,
        squares / others,
        (count + pseudo) / exposure,
        exposure,
        1 / (count + SHRINKAGE),
    )


def _sums(
    features: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None
) -> tuple[
    Float[Tensor, "vocabulary width"], Float[Tensor, " vocabulary"], Float[Tensor, "n width"]
]:
    """Return Σ p_v h and Σ p_v² over targets other than v, and each target's share (p_y − 1)h."""
    sums, squares = torch.zeros(weight.shape).double(), torch.zeros(len(weight)).double()
    shares = []
    dtype = torch.promote_types(features.dtype, torch.float32)
    features, weight = features.to(dtype), weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    for rows in torch.arange(len(features)).split(max(1, CHUNK // len(weight))):
        h = features[rows]
        p = functional.linear(h, weight, bias).softmax(dim=1)
        place = torch.arange(len(rows)), targets[rows]
        shares.append((p[place].double() - 1).unsqueeze(1) * h.double())
        p[place] = 0.0
        sums += p.T @ h
        squares += p.square_().sum(dim=0)
    return sums, squares, torch.cat(shares)


def _pseudo_count(count: Float[Tensor, " vocabulary"]) -> float:
    """Return what is added to each token's count, so that tokens not counted have their share.

    That share is estimated by the tokens counted once (I. J. Good, "The population frequencies of
    species and the estimation of population parameters", Biometrika 1953).
    """
    once = (float((count == 1).sum()) + 1) / (float(count.sum()) + 2)
    return float(count.sum()) * once / (1 - once) / len(count)


def _whitening(inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Return W and λ with WᵀS_in W = I and WᵀS_out W = diag(λ), in the directions that vary.

    Behind a LayerNorm features lie in a hyperplane, so that one direction shows rounding alone.
    """
    values, vectors = torch.linalg.eigh(outer)
    basis = vectors[:, values > FLAT * values[-1]]
    inside = basis.T @ inner @ basis
    inside += torch.eye(len(inside), dtype=inside.dtype) * 1e-3 * inside.diagonal().mean()
    root = torch.linalg.inv(torch.linalg.cholesky(inside)).T
    spread, turn = torch.linalg.eigh(root.T @ (basis.T @ outer @ basis) @ root)
    return basis @ root @ turn, spread.clamp(min=0)
