"""What no adversary can exceed, in closed form, and what scores must imply.

*Count ceilings*: who reads the exact number of records with the property in a batch, and nothing
else, is an oracle for games whose secret acts through that number only. *Information*: Fano and
data processing (T. Cover, J. Thomas, "Elements of Information Theory", chapter 2). *Differential
privacy*: P. Kairouz, S. Oh, P. Viswanath, ICML 2015 (total variation of (ε, δ)); J. Dong, A. Roth,
W. Su, "Gaussian differential privacy", 2022 (μ-GDP).
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

Counts = NDArray[np.float64]
"""P(X = 0), …, P(X = B): a distribution of the number of records with the property."""
Values = NDArray[np.float64]


def attribute_counts(batch: int, prior: float) -> tuple[Counts, Counts]:
    """Return the count's distribution without and with the attribute in the target record.

    Args:
        batch: Records, the target included.
        prior: P(a = 1) of every other record.
    """
    others = _binomial(batch - 1, prior)
    return np.append(others, 0.0), np.insert(others, 0, 0.0)


def share_counts(batch: int, shares: Sequence[float]) -> tuple[Counts, ...]:
    """Return the count's distribution for records drawn with P(a = 1) = each of the shares."""
    return tuple(_binomial(batch, share) for share in shares)


def _binomial(n: int, p: float) -> Counts:
    from scipy.stats import binom  # takes as long to import as Flower does

    return np.asarray(binom.pmf(np.arange(n + 1), n, p), dtype=np.float64)


def count_auroc(without: Counts, having: Counts) -> float:
    """Return the AUROC of the likelihood ratio of the count: P(X₁ > X₀) + P(X₁ = X₀) / 2.

    Counts are ordered by their likelihood ratio, which for these games is the count itself.
    """
    ratio = having / np.maximum(without, 1e-300)
    levels, place = np.unique(np.round(np.log(np.maximum(ratio, 1e-300)), 12), return_inverse=True)
    zero, one = (np.bincount(place, weights=p, minlength=len(levels)) for p in (without, having))
    return float((one * (np.cumsum(zero) - zero / 2)).sum())


def count_information(distributions: Sequence[Counts]) -> float:
    """Return I(s; X) in bits, for s uniform over the distributions of X."""
    rows = np.stack(distributions)
    mean = rows.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(rows > 0, rows * np.log2(rows / mean), 0.0)
    return float(terms.sum() / len(rows))


def gaussian_auroc(mu: float) -> float:
    """Return the largest AUROC between two neighbours under μ-GDP: Φ(μ/√2)."""
    return float(scipy.special.ndtr(mu / math.sqrt(2)))


def gaussian_advantage(mu: float) -> float:
    """Return the largest TPR − FPR between two neighbours under μ-GDP: 2Φ(μ/2) − 1."""
    return float(2 * scipy.special.ndtr(mu / 2) - 1)


def gaussian_information(mu: float) -> float:
    """Return the most that an upload tells of a fair coin under μ-GDP, in bits.

    1 − E log₂(1 + e^−L), where L ~ N(μ²/2, μ²) is the log-likelihood ratio of N(μ, 1) to N(0, 1).
    """
    z = np.linspace(-12, 12, 4801)
    weights = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    doubt = np.logaddexp(0.0, -(mu**2 / 2 + mu * z)) / math.log(2)
    return max(0.0, 1 - float(weights @ doubt))


def mixed_gaussian_auroc(mus: Values, chances: Values) -> float:
    """Return the largest AUROC where the two differ by each μ with a chance, and all see which.

    Σ_jk p_j p_k Φ(√(μ_j² + μ_k²)/2): log-likelihood ratios are N(±μ²/2, μ²). Of a single μ it is
    `gaussian_auroc`.
    """
    squares = np.add.outer(np.square(mus), np.square(mus))
    return min(1.0, float(chances @ scipy.special.ndtr(np.sqrt(squares) / 2) @ chances))


def private_advantage(epsilon: float, delta: float) -> float:
    """Return the largest TPR − FPR between two neighbours under (ε, δ)-DP: total variation."""
    shrunk = math.exp(-epsilon)  # no overflow for large ε
    return min(1.0, (1 - shrunk + 2 * delta * shrunk) / (1 + shrunk))


def private_auroc(epsilon: float, delta: float) -> float:
    """Return the largest AUROC between two neighbours under (ε, δ)-DP.

    All that such a mechanism shows is made from the secret itself, with chance δ, and else from
    randomised response (Kairouz, Oh, Viswanath, theorem 3.1).
    """
    hidden = 1 - min(1.0, delta)
    return 1 - hidden**2 * _lie(epsilon)


def private_information(epsilon: float, delta: float) -> float:
    """Return the most that an upload tells of a fair coin under (ε, δ)-DP, in bits."""
    hidden = 1 - min(1.0, delta)
    return 1 - hidden * _binary_entropy(_lie(epsilon))


def _lie(epsilon: float) -> float:
    """Return how often randomised response says the other value."""
    shrunk = math.exp(-epsilon)
    return shrunk / (1 + shrunk)


def error_floor(information: float, classes: int) -> float:
    """Return Fano's lower bound of the error probability of any guess of a uniform secret.

    Args:
        information: Upper bound of I(s; u), in bits.
        classes: K. For two, the inverse of the binary entropy; else (log₂K − I − 1) / log₂K.
    """
    left = math.log2(classes) - information
    if left <= 0:
        return 0.0
    if classes > 2:
        return max(0.0, (left - 1) / math.log2(classes))
    low, high = 0.0, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _binary_entropy(middle) < left else (low, middle)
    return low


def _binary_entropy(p: float) -> float:
    return 0.0 if p in (0.0, 1.0) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)
