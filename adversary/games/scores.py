"""How well scores tell a secret: with intervals, over independent trials."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ENOUGH = 10  # false positives below which a TPR at that rate is not told
FEW = 30  # trials of a kind below which DeLong's interval alone is too short
CONFIDENCE = 1.959964  # standard errors on either side of a 95 % interval
BELOW = 3.09  # standard errors below chance that one score in a thousand has by chance


@dataclass(frozen=True)
class Measured:
    """A value with its 95 % interval; `low` and `high` are NaN where none is known."""

    value: float
    low: float = math.nan
    high: float = math.nan


def auroc_of(log_probabilities: Float[Tensor, "n classes"], secrets: Int[Tensor, " n"]) -> Measured:
    """Return the AUROC of two classes' log-odds, or of several classes the mean of each one's.

    Args:
        log_probabilities: Higher for the likelier class.
        secrets: The true class of each.
    """
    if log_probabilities.shape[1] > 2:
        return macro_auroc(log_probabilities, secrets)
    return auroc(log_probabilities[:, 1] - log_probabilities[:, 0], secrets == 1)


def below_chance(measured: Measured) -> bool:
    """Return whether an AUROC lies below 1/2 by more than chance: p < 0.001, one-sided."""
    error = (measured.high - measured.value) / CONFIDENCE
    return measured.value + BELOW * error < 0.5


def auroc(scores: Float[Tensor, " n"], secret: Bool[Tensor, " n"]) -> Measured:
    """Return the probability that a trial with the secret scores above one without; ties half.

    The interval is DeLong's: E. DeLong, D. DeLong, D. Clarke-Pearson, "Comparing the areas under
    two or more correlated receiver operating characteristic curves", Biometrics 1988. It has no
    width where all trials are told apart: there, and of fewer than 30 trials of a kind, it reaches
    as far as Newcombe's too. NaN where one kind of trial is missing.

    Args:
        scores: Higher where the secret is more likely.
        secret: Whether it is so.
    """
    above, below = scores[secret].double(), scores[~secret].double()
    if not len(above) or not len(below):
        return Measured(math.nan)
    beaten = _placements(above, below)  # of each positive: the share of negatives it beats
    lost = _placements(below, above)
    value = float(beaten.mean())
    if len(above) < 2 or len(below) < 2:
        return Measured(value)
    error = math.sqrt(float(beaten.var()) / len(above) + float(lost.var()) / len(below))
    measured = _interval(value, error)
    if error > 0 and min(len(above), len(below)) >= FEW:
        return measured
    low, high = _newcombe(value, len(above), len(below))
    return Measured(value, min(measured.low, low), max(measured.high, high))


def _newcombe(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """Return Newcombe's interval of an AUROC: every area that the value is not too far from.

    R. Newcombe, "Confidence intervals for an effect size measure based on the Mann–Whitney
    statistic. Part 2: asymptotic methods and evaluation", Statistics in Medicine 2006, method 5: an
    area θ is in it if |value − θ| is at most z standard errors, as J. Hanley and B. McNeil
    (Radiology 1982) give them for θ, with both numbers of trials replaced by their mean inside.
    """
    middle = (positives + negatives) / 2 - 1

    def is_near(area: float) -> bool:
        spread = 1 + middle * (1 - area) / (2 - area) + middle * area / (1 + area)
        variance = area * (1 - area) * spread / (positives * negatives)
        return abs(value - area) <= CONFIDENCE * math.sqrt(variance)

    return _edge(is_near, value, 0.0), _edge(is_near, value, 1.0)


def _edge(is_near: Callable[[float], bool], inner: float, outer: float) -> float:
    """Return by bisection where `is_near` ends between `inner`, where it holds, and `outer`."""
    for _ in range(60):
        middle = (inner + outer) / 2
        inner, outer = (middle, outer) if is_near(middle) else (inner, middle)
    return inner


def _placements(values: Tensor, other: Tensor) -> Tensor:
    """Return the share of `other` below each of `values`; equal ones count half."""
    ordered = other.sort().values
    first = torch.searchsorted(ordered, values)
    last = torch.searchsorted(ordered, values, right=True)
    return (first + last).double() / (2 * len(other))


def _interval(value: float, error: float, low: float = 0.0, high: float = 1.0) -> Measured:
    if math.isnan(error):
        return Measured(value)
    reach = CONFIDENCE * error
    return Measured(value, max(low, value - reach), min(high, value + reach))


def advantage(scores: Float[Tensor, " n"], secret: Bool[Tensor, " n"]) -> float:
    """Return max_t TPR(t) − FPR(t), never negative; NaN where one kind of trial is missing."""
    true, false = _rates(scores, secret)
    return float((true - false).max()) if len(true) else math.nan


def tpr_at(scores: Float[Tensor, " n"], secret: Bool[Tensor, " n"], *, fpr: float) -> float:
    """Return the largest TPR at a false-positive rate of at most `fpr`.

    NaN where fewer than 10 of the negatives would be false positives: it would say nothing.
    """
    if int((~secret).sum()) * fpr < ENOUGH or not bool(secret.any()):
        return math.nan
    true, false = _rates(scores, secret)
    return float(true[false <= fpr].max())


def _rates(scores: Tensor, secret: Tensor) -> tuple[Tensor, Tensor]:
    """Return TPR and FPR of every threshold, from the one that names nobody on."""
    positives, negatives = int(secret.sum()), int((~secret).sum())
    if not positives or not negatives:
        return torch.zeros(0), torch.zeros(0)
    levels, place = scores.unique(return_inverse=True)
    zeros = torch.zeros(len(levels), dtype=torch.float64)
    hits = [
        zeros.clone().index_add_(0, place, mask.double()).flip(0).cumsum(0)
        for mask in (secret, ~secret)
    ]
    start = torch.zeros(1, dtype=torch.float64)
    return torch.cat([start, hits[0] / positives]), torch.cat([start, hits[1] / negatives])


def accuracy(scores: Float[Tensor, "n classes"], secrets: Int[Tensor, " n"]) -> Measured:
    """Return the share of trials whose highest score is the secret's, with Wilson's interval.

    E. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    share, count = float((scores.argmax(dim=1) == secrets).double().mean()), len(secrets)
    shrunk = CONFIDENCE**2 / count
    middle = (share + shrunk / 2) / (1 + shrunk)
    reach = CONFIDENCE * math.sqrt(share * (1 - share) / count + shrunk / (4 * count))
    reach /= 1 + shrunk
    return Measured(share, min(share, middle - reach), max(share, middle + reach))


def information(
    log_probabilities: Float[Tensor, "n classes"], secrets: Int[Tensor, " n"]
) -> Measured:
    """Return H(s) − cross-entropy of held-out predictions, in bits.

    Above 0 it is a lower bound of I(s; u): D. Barber, F. Agakov, "The IM algorithm", NeurIPS 2003;
    equal for the true posterior. Below 0 it bounds nothing that is not known: the predictor is
    worse than the prior. The prior is uniform over the classes.

    Args:
        log_probabilities: log p(s | u) by a predictor that has not seen these trials, in nats.
        secrets: The true class of each.
    """
    classes = log_probabilities.shape[1]
    of_secret = log_probabilities.gather(1, secrets[:, None])[:, 0].double()
    bits = math.log2(classes) + of_secret / math.log(2)
    error = float(bits.std()) / math.sqrt(len(bits)) if len(bits) > 1 else math.nan
    return _interval(float(bits.mean()), error, -math.inf, math.log2(classes))


def macro_auroc(scores: Float[Tensor, "n classes"], secrets: Int[Tensor, " n"]) -> Measured:
    """Return the mean over classes of each one's AUROC against the rest, with its interval.

    DeLong's too: a trial moves all of the AUROCs, and the interval is that of what it moves in sum.
    Where no trial moves anything, the ends are the means of Newcombe's.
    """
    ends: list[tuple[float, float]] = []
    values, moved, several = [], torch.zeros(len(secrets), dtype=torch.float64), True
    for c in range(scores.shape[1]):
        mine = secrets == c
        above, below = scores[mine, c].double(), scores[~mine, c].double()
        if not len(above) or not len(below):
            continue
        beaten, lost = _placements(above, below), _placements(below, above)
        values.append(float(beaten.mean()))
        ends.append(_newcombe(values[-1], len(above), len(below)))
        several = several and len(above) > 1 and len(below) > 1
        moved[mine] += (beaten - beaten.mean()) / max(1, len(above) - 1)
        moved[~mine] -= (lost - lost.mean()) / max(1, len(below) - 1)
    if not values:
        return Measured(math.nan)
    value = sum(values) / len(values)
    error = float(moved.norm()) / len(values) if several else math.nan
    if several and error < 1e-12:
        low, high = (sum(of) / len(of) for of in zip(*ends, strict=True))
        return Measured(value, low, high)
    return _interval(value, error)
