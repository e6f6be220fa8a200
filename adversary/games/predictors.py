"""Predictors of a secret from gradients, fitted and chosen on shadow data only.

L. Melis, C. Song, E. De Cristofaro, V. Shmatikov, "Exploiting unintended feature leakage in
collaborative learning", S&P 2019: a random forest on the gradient's magnitudes, with the settings
of their code. Here it looks at signs, norms and analytic readings too (`features`). A linear
discriminant beside it: the forest wins on clean and sparse gradients, the linear one as soon as
there is dense noise. Both once more on the norms and readings alone, which are few.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.games.evidence import Evidence
from adversary.games.features import Columns, columns_of
from adversary.games.scores import Measured, auroc_of, below_chance

VALIDATION = 0.25  # share of the shadow trials on which predictors are chosen and calibrated
LOWEST = 0.02  # probability of a class that no evidence takes further down, per pair of classes
TREES, LEAF, SPLIT = 100, 5, 5  # Melis et al.
STRENGTHS = 10.0 ** np.arange(-2, 7)  # of the ridge, per standard deviation

Score = Callable[[Evidence], Tensor]
"""What the adversary has of n trials → scores (n, classes)."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A predictor, calibrated on validation trials.

    Attributes:
        name: Of the score; `static` before it where it has never seen the defense.
        score: Higher for the likelier class.
        slope, shift: log p(class) = slope · score + shift, up to a constant.
        held_out: Of the validation trials, log p(class), shape (v, classes).
        secrets: Their classes, shape (v,).
        held_out_auroc: Of trials that no score was fitted on, defended as those to come are.
    """

    name: str
    score: Score
    slope: float
    shift: Tensor
    held_out: Tensor
    secrets: Tensor
    held_out_auroc: Measured

    def log_probabilities(self, evidence: Evidence) -> Float[Tensor, "n classes"]:
        """Return log p(class | evidence), in nats, no probability below its floor."""
        return _probable(self.slope * self.score(evidence) + self.shift)


def upload_scores(
    evidence: Evidence, secrets: Int[Tensor, " n"], classes: int, *, seed: int
) -> dict[str, Score]:
    """Fit forests and linear discriminants to uploads.

    Args:
        evidence: Of the shadow trials.
        secrets: The class of each.
        classes: K; every class must occur.
        seed: Of the forests.

    Returns:
        `forest` looks at magnitudes, `signed forest` and `linear` at entries with their signs, all
        three also at norms and readings; `summary forest` and `summary linear` at these alone,
        which are few.
    """
    sizes, few = columns_of(evidence, magnitudes=True), columns_of(evidence)
    signed = columns_of(evidence, entries=True)
    entries, rows = signed(evidence), few(evidence)
    forest = partial(_forest, secrets=secrets, classes=classes, seed=seed)
    linear = partial(_linear, secrets=secrets, classes=classes)
    return {
        "forest": _after(sizes, forest(sizes(evidence))),
        "linear": _after(signed, linear(entries)),
        "signed forest": _after(signed, forest(entries)),
        "summary forest": _after(few, forest(rows)),
        "summary linear": _after(few, linear(rows)),
    }


def _after(columns: Columns, score: Callable[[Tensor], Tensor]) -> Score:
    return lambda trials: score(columns(trials))


def choose(scores: dict[str, Score], evidence: Evidence, secrets: Int[Tensor, " n"]) -> Predictor:
    """Return the one with the lowest cross-entropy on validation trials, after calibration.

    Args:
        scores: By name; of equals the first.
        evidence: Of trials that none of them was fitted on.
        secrets: The class of each.
    """
    ranked = []
    for place, (name, score) in enumerate(scores.items()):
        values = score(evidence)
        slope, shift = _calibrated(values, secrets)
        held_out = _probable(slope * values + shift)
        loss = -float(held_out.gather(1, secrets[:, None]).mean())
        predictor = Predictor(
            name=name,
            score=score,
            slope=slope,
            shift=shift,
            held_out=held_out,
            secrets=secrets,
            held_out_auroc=auroc_of(held_out, secrets),
        )
        ranked.append((loss, place, predictor))
    return min(ranked)[2]


def turned(
    scores: dict[str, Score], evidence: Evidence, secrets: Int[Tensor, " n"]
) -> dict[str, Score]:
    """Return the negative of each score of two classes that is below chance on validation trials.

    A defense that moves uploads past the point where a predictor says nothing leaves a score that
    is wrong reliably: its negative is right.

    Args:
        scores: By name.
        evidence: Of validation trials.
        secrets: The class of each.
    """
    wrong = {}
    for name, score in scores.items():
        values = score(evidence)
        if values.shape[1] == 2 and below_chance(auroc_of(values, secrets)):
            wrong[f"turned {name}"] = partial(_negative, score)
    return wrong


def _negative(score: Score, trials: Evidence) -> Tensor:
    return -score(trials)


def with_mean(
    scores: dict[str, Score], evidence: Evidence, secrets: Int[Tensor, " n"]
) -> dict[str, Score]:
    """Return the scores, and their mean after each one's calibration: `mean of all`.

    Few validation trials choose among several predictors by chance; their mean loses little to the
    best of them.

    Args:
        scores: By name.
        evidence: Of validation trials.
        secrets: The class of each.
    """
    each = [choose({name: score}, evidence, secrets) for name, score in scores.items()]
    mean = lambda trials: torch.stack([one.log_probabilities(trials) for one in each]).mean(dim=0)
    return {**scores, "mean of all": mean}


def recalibrated(
    total: Float[Tensor, "n classes"], held_out: Float[Tensor, "v classes"], secrets: Tensor
) -> Float[Tensor, "n classes"]:
    """Return log p(class | all rounds), from sums over rounds of log p(class | round).

    Rounds with the same records err together, and their sum is surer than it may be: slope and
    shift are those that make the same sums over validation trials most likely.

    Args:
        total: Sums over the trials.
        held_out: Of the validation trials.
        secrets: Their classes.
    """
    slope, shift = _calibrated(held_out, secrets)
    return _probable(slope * total + shift)


def combine(
    rounds: Sequence[Float[Tensor, "n classes"]], uploads: Sequence[Tensor]
) -> Float[Tensor, "n classes"]:
    """Add the log-odds of several rounds; an upload that was in an earlier round adds nothing.

    Args:
        rounds: log p(class | update) of every round, under a uniform prior.
        uploads: Of each round, shape (n, …): a trial's exact copies count once.
    """
    total = torch.zeros_like(rounds[0])
    for place, log_probabilities in enumerate(rounds):
        again = torch.zeros(len(log_probabilities), dtype=torch.bool)
        for earlier in uploads[:place]:
            again |= (earlier == uploads[place]).flatten(1).all(dim=1)
        total += torch.where(again[:, None], 0.0, log_probabilities)
    return total.log_softmax(dim=1)


def _probable(logits: Tensor) -> Float[Tensor, "n classes"]:
    shares = logits.double().log_softmax(dim=1)
    lowest = 2 * LOWEST / shares.shape[1]
    return ((1 - shares.shape[1] * lowest) * shares.exp() + lowest).log()


def _forest(
    features: Tensor, secrets: Tensor, classes: int, seed: int
) -> Callable[[Tensor], Tensor]:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(
        TREES,
        min_samples_leaf=LEAF,
        min_samples_split=SPLIT,
        random_state=seed,
        n_jobs=torch.get_num_threads(),
    )
    forest.fit(features.numpy(), secrets.numpy())
    forest.n_jobs = 1  # threads would add the trees' votes in whatever order they finish
    fitted_classes = torch.as_tensor(forest.classes_, dtype=torch.int64)

    def score(values: Tensor) -> Tensor:
        votes: Any = forest.predict_proba(values.numpy())
        shares = torch.zeros(len(values), classes, dtype=torch.float64)
        shares[:, fitted_classes] = torch.as_tensor(np.asarray(votes))
        smooth = (TREES * shares + 0.5) / (TREES + 0.5 * classes)  # no share is quite nothing
        return smooth.log()

    return score


def _linear(features: Tensor, secrets: Tensor, classes: int) -> Callable[[Tensor], Tensor]:
    """Fit ridge regression of one-hot classes, its strength by generalised cross-validation.

    With two classes the direction is the linear discriminant's under a shrunk covariance. Solved
    in the space of trials, or of entries where they are fewer.
    """
    x = features.to(torch.float64, copy=True)
    mean, spread = x.mean(dim=0), x.std(dim=0)
    scale = torch.where(spread > 0, spread, math.inf) * math.sqrt(x.shape[1])
    x = x.sub_(mean).div_(scale)
    targets, count = torch.eye(classes, dtype=torch.float64)[secrets], len(x)
    centre = targets.mean(dim=0)
    values, vectors = _squares(x)
    rotated = vectors.T @ (targets - centre)
    outside = float((targets - centre).square().sum() - rotated.square().sum())
    best: tuple[float, Tensor] | None = None
    for strength in STRENGTHS * (float(values.sum()) / count or 1.0) * 1e-3:
        residual = strength / (values + strength)  # what is left of each direction
        error = float((residual[:, None] * rotated).square().sum()) + outside
        error /= (float(residual.sum()) + count - len(residual)) ** 2
        if best is None or error < best[0]:
            best = error, vectors @ (rotated / (values + strength)[:, None])
    assert best is not None
    weights = x.T @ best[1]

    def score(trials: Tensor) -> Tensor:
        return trials.to(torch.float64, copy=True).sub_(mean).div_(scale) @ weights + centre

    return score


def _squares(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared singular values of x, and its left singular vectors in columns."""
    if x.shape[0] <= x.shape[1]:
        values, vectors = torch.linalg.eigh(x @ x.T)
        return values.clamp(min=0), vectors
    values, right = torch.linalg.eigh(x.T @ x)
    positive = values > 1e-12 * values.max()
    return values[positive], x @ right[:, positive] / values[positive].sqrt()


def _calibrated(scores: Tensor, secrets: Tensor) -> tuple[float, Tensor]:
    """Return slope ≥ 0 and shifts that make softmax(slope · score + shift) most likely.

    J. Platt, "Probabilistic outputs for support vector machines", 1999; one slope for all classes.
    """
    from scipy.optimize import minimize

    spread = float(scores.std()) or 1.0
    scaled, classes = (scores / spread).double(), scores.shape[1]

    def loss(values: Any) -> tuple[float, Any]:
        at = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        logits = at[0].exp() * scaled + at[1:]
        # A weak pull: where a class is separated without an error, slopes would grow for ever.
        value = torch.nn.functional.cross_entropy(logits, secrets) + 1e-3 * at.square().sum()
        (slopes,) = torch.autograd.grad(value, at)
        return float(value.detach()), slopes.numpy()

    # Not L-BFGS-B, which wakes BLAS's threads in every step: ten times slower on a busy machine.
    bounds = [(-6, 4), *[(None, None)] * classes]
    start = np.append(0.0, np.zeros(classes))
    fit = minimize(loss, start, jac=True, method="TNC", bounds=bounds)
    return math.exp(fit.x[0]) / spread, torch.as_tensor(fit.x[1:])
