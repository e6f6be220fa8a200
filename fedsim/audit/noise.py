"""Is noise what it claims to be? Exact tests of every tensor by itself, and of every run."""

from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise
from typing import NamedTuple

import torch
from scipy.stats import beta, binom, chi2, kstest
from torch import Tensor

ALIKE = 0.5  # share of the noise that is the same in every run: honest noise has 1/runs
ROUNDING = 1e-3  # by which a standard deviation may be smaller than it claims
FEW = 16  # tensors of which all pairs are compared; of more, neighbours
ENTRIES = 20_000  # whose distribution is looked at
HALF = 13  # last bits of a float32 that no half-precision number has
NONE = 1e-6  # chance of a run's noise below which there was none


class Doubt(NamedTuple):
    """A way in which noise may not be what it claims.

    Attributes:
        p: The chance of what was measured, or worse, if the claim holds.
        reason: What is wrong then.
    """

    p: float
    reason: str


def doubt(streams: Mapping[str, Tensor], std: float, sizes: Mapping[str, int]) -> Doubt:
    """Return the strongest doubt, its p-value corrected for all that were looked at.

    Args:
        streams: What a run is called → noise of as many runs, shape (runs, d), each new by claim.
        std: What it is claimed to be on every entry.
        sizes: Name of every tensor → its number of entries, in the order of d.
    """
    doubts = [
        each
        for unit, noise in streams.items()
        for each in _doubts(noise.double() / (std * (1 - ROUNDING)), std, sizes, unit)
    ]
    worst = min(doubts, key=lambda each: each.p)  # the first of equals
    return Doubt(min(1.0, worst.p * len(doubts)), worst.reason)


def _doubts(noise: Tensor, std: float, sizes: Mapping[str, int], unit: str) -> Iterator[Doubt]:
    """Yield all doubts about noise in units of its claim: first what explains most."""
    parts = dict(zip(sizes, noise.split(list(sizes.values()), dim=1), strict=True))
    whole = {"": noise} if len(parts) != 1 else {}
    for name, part in (whole | parts).items():
        yield _fresh(part, std, name, unit)
    yield _pairs(noise, unit)
    for name, part in (whole | parts).items():
        yield _every_run(part, name, unit)
    yield _every_entry(noise, unit)
    yield _shape(noise)
    for name, part in parts.items():
        yield _neighbours(part, name)
    yield from _twins(parts)


def _fresh(noise: Tensor, std: float, name: str, unit: str) -> Doubt:
    """Look at the size of what is new in every run: Σ(x − x̄)² is χ² of (n − 1)·d."""
    count, size = noise.shape
    left = float((noise - noise.mean(dim=0)).square().sum())
    p = float(chi2.cdf(left, (count - 1) * size))
    total = float(noise.square().mean())
    alike = float(noise.mean(dim=0).square().mean()) / total if total else 0.0
    if alike > ALIKE:
        reason = f"reuses its noise: {100 * alike:.0f} % of it is the same in every {unit}"
        return Doubt(p, reason + _on(name))
    measured = std * (1 - ROUNDING) * (left / ((count - 1) * size)) ** 0.5
    where = _on(name)
    return Doubt(
        p, f"noise too small{where}: claims a standard deviation of {std:.3g}, got {measured:.3g}"
    )


def _pairs(noise: Tensor, unit: str) -> Doubt:
    """Look for two runs with similar noise: (1 + cos)/2 is Beta((d − 1)/2, (d − 1)/2)."""
    count, size = noise.shape
    if size < 2:
        return Doubt(1.0, "")
    unit_rows = noise / noise.norm(dim=1, keepdim=True).clamp(min=1e-30)
    cosines = (unit_rows @ unit_rows.T).abs().fill_diagonal_(0.0)
    half = (size - 1) / 2
    chance = float(beta.sf((1 + min(1.0, float(cosines.max()))) / 2, half, half))
    return Doubt(
        count * (count - 1) * chance,
        f"reuses its noise: that of one {unit} is like that of another",
    )


def _every_run(noise: Tensor, name: str, unit: str) -> Doubt:
    """Look at the run with the least noise: Σx² of a run is χ² of d."""
    count, size = noise.shape
    chances = chi2.cdf(noise.square().sum(dim=1).numpy(), size)
    failed = int((chances < NONE / count).sum())
    return Doubt(
        count * float(chances.min()),
        f"adds too little noise{_on(name)} in {failed} of {count} {unit}s",
    )


def _every_entry(noise: Tensor, unit: str) -> Doubt:
    """Look at the entry with the least noise: Σ(x − x̄)² of an entry is χ² of n − 1."""
    count, size = noise.shape
    chances = chi2.cdf((noise - noise.mean(dim=0)).square().sum(dim=0).numpy(), count - 1)
    failed = int((chances < NONE / size).sum())
    reason = f"adds too little new noise to {failed} of {size} entries, over {count} {unit}s"
    return Doubt(size * float(chances.min()), reason)


def _shape(noise: Tensor) -> Doubt:
    """Compare the noise, in units of its own size, with a normal distribution (Kolmogorov)."""
    some = (noise - noise.mean(dim=0)).flatten()[:ENTRIES]
    scale = float(some.std())
    p = float(kstest((some / scale).numpy(), "norm").pvalue) if scale else 1.0
    return Doubt(p, "adds noise that is not normal")


def coarse(noise: Tensor) -> Doubt:
    """Look for noise in half precision: the last 13 bits of float32 are 0 once in 2¹³."""
    bits = noise.float().flatten().contiguous().view(torch.int32)
    zeros = int(((bits & (2**HALF - 1)) == 0).sum())
    p = float(binom.sf(zeros - 1, len(bits), 2.0**-HALF)) if len(bits) else 1.0
    return Doubt(p, "adds noise in half precision, whose last digits give the update away")


def _neighbours(noise: Tensor, name: str) -> Doubt:
    """Look at differences of entries that stand side by side: noise of one draw has none."""
    even = noise.shape[1] // 2 * 2
    return _contrast(
        noise[:, 0:even:2], noise[:, 1:even:2], f"adds the same noise to several entries of {name}"
    )


def _twins(parts: Mapping[str, Tensor]) -> Iterator[Doubt]:
    """Look at differences of tensors: noise from a seed that was used twice has none."""
    every = len(parts) <= FEW
    for first, second in combinations(parts, 2) if every else pairwise(parts):
        size = min(parts[first].shape[1], parts[second].shape[1])
        reason = f"adds the same noise to {first} and {second}"
        yield _contrast(parts[first][:, :size], parts[second][:, :size], reason)


def _contrast(one: Tensor, other: Tensor, reason: str) -> Doubt:
    """Return the doubt that two parts have noise of their own: Σ(x − y)²/2 is χ²."""
    if not one.numel():
        return Doubt(1.0, reason)
    apart = one - other
    left = float((apart - apart.mean(dim=0)).square().sum()) / 2
    return Doubt(float(chi2.cdf(left, (len(one) - 1) * one.shape[1])), reason)


def size_of(noise: Tensor) -> float:
    """Return the standard deviation of what is new in every run."""
    fresh = noise.double() - noise.double().mean(dim=0)
    return float(torch.sqrt(fresh.square().sum() / max(1, (len(noise) - 1) * noise.shape[1])))


def _on(name: str) -> str:
    return f" on {name}" if name else ""
