"""Known records: a likelihood ratio of an upload, given each value of the secret.

The upload is the record's own share plus that of others, whose mean and covariance the adversary
learns from shadow trials; a direction counts the less, the more it varies with the others and with
a defense's noise. `ratio` takes entries as independent (`papers/inference.md`, 2.2), `whitened`
takes their covariance, shrunk towards the diagonal of equal entries: gradients of other records lie
in few directions, and beside those the record in question stands out. Beside them the cosine of
the upload and each hypothetical gradient, as in L. Lyu, C. Chen, "A novel attribute reconstruction
attack in federated learning", 2021.

An adversary that knows the defense sends its hypotheses through it: `defended_scores`.

*Exact when*: the sum of the others is Gaussian with that covariance. It is not, and ratios are
over-confident: they are calibrated on shadow trials.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.games.evidence import Evidence
from fedsim.core.memory import Memory

FLOOR = 1e-4  # of an entry's variance, in units of the mean over all entries
SHRINKAGE = 3e-3  # of a covariance towards equal entries, in the same unit
TINY = 1e-12  # of its variance where nothing varies, in units of the squared upload

Score = Callable[[Evidence], Tensor]
Divide = Callable[[Tensor], Tensor]
"""Shifts (…, d) → the same, divided by a covariance."""


def record_scores(
    evidence: Evidence, secrets: Int[Tensor, " n"], *, through: float = 1.0
) -> dict[str, Score]:
    """Learn what the others' share looks like, and return the ways to score.

    Args:
        evidence: Of shadow trials, with hypotheses.
        secrets: The class of each.
        through: Which part of a gradient the defense lets through.

    Returns:
        `ratio`, `whitened` and `cosine`.
    """
    hypotheses, share = _hypotheses(evidence), through * evidence.weight
    several, absent = evidence.uploads.ndim == 3, None
    unknown = evidence.uploads - _others(evidence, share)
    if several:
        unknown = _of(unknown, secrets)
    target = hypotheses.mean(dim=2)  # of unknown labels their mean
    target = target[:, 0] if target.shape[1] == 1 else _of(target, secrets)
    residual = unknown - share * target
    if hypotheses.shape[1] == 1 and not several:  # the record may not be there at all
        absent = unknown[secrets == 0].mean(dim=0)
        residual = residual[secrets == 1]
    mean, tiny = residual.mean(dim=0), TINY * float(evidence.uploads.square().mean()) + 1e-30
    residual = (residual - mean).double()
    variance = residual.square().mean(dim=0)
    level = float(variance.mean())

    gone = None if absent is None else absent - mean
    ratio = lambda divide: _tamed(_ratio(divide, mean, gone, through), evidence)
    scores = {
        "ratio": ratio(_entrywise(variance + FLOOR * level + tiny)),
        "cosine": lambda trials: cosine(trials, through=through),
    }
    if level > tiny:
        divide = _shrunk(*_principal(residual), SHRINKAGE * level + tiny)
        scores["whitened"] = ratio(divide)
    return scores


def _ratio(divide: Divide, mean: Tensor, absent: Tensor | None, through: float) -> Score:
    """Return the likelihood ratio under a covariance.

    Args:
        divide: Division by the covariance.
        mean: Of uploads without the record's own share, shape (d,).
        absent: The shift of an upload that the record is not in; None where it always is.
        through: Which part of a gradient the defense lets through.
    """
    memory = Memory()  # many uploads are tried with the same records

    def shifts(hypotheses: Tensor, part: float) -> tuple[Tensor, Tensor]:
        shift = part * hypotheses
        if absent is not None:
            none = absent.expand(len(shift), 1, shift.shape[2], -1)
            shift = torch.cat([none, shift], dim=1)
        weight = divide(shift).double()
        return weight, (weight * shift).sum(dim=-1) / 2

    def score(trials: Evidence) -> Tensor:
        part, records = through * trials.weight, _hypotheses(trials)
        left = trials.uploads - mean - _others(trials, part)
        key, compute = (records, part), lambda: shifts(records, part)
        return _likelihood(left, *memory.get(shifts, key, compute, keep=1))

    return score


def defended_scores(
    evidence: Evidence, secrets: Int[Tensor, " n"], push: Callable[[Evidence], Tensor]
) -> dict[str, Score]:
    """Return the ways to score an upload by hypotheses that went through the defense too.

    Args:
        evidence: As for `record_scores`.
        secrets: The class of each.
        push: Trials → the whole upload that each hypothesis makes likely, shaped as hypotheses.

    Returns:
        `defended ratio` and `defended whitened`.
    """
    memory, whole = Memory(), push(evidence)
    centre = whole.mean(dim=(0, 1, 2))

    def pushed(trials: Evidence) -> Evidence:
        compute = lambda: push(trials) - centre
        return _predicted(trials, memory.get(push, trials.records, compute, keep=1))

    scores = record_scores(_predicted(evidence, whole - centre), secrets)
    ratios = {name: score for name, score in scores.items() if name != "cosine"}
    return {f"defended {name}": _on(pushed, score) for name, score in ratios.items()}


def _predicted(trials: Evidence, hypotheses: Tensor) -> Evidence:
    """Return trials whose hypotheses are of the whole upload."""
    return replace(trials, hypotheses=hypotheses, others=None, weight=1.0)


def _on(change: Callable[[Evidence], Evidence], score: Score) -> Score:
    return lambda trials: score(change(trials))


def _entrywise(variance: Tensor) -> Divide:
    return lambda shift: shift / variance.float()


def _principal(residual: Tensor) -> tuple[Tensor, Tensor]:
    """Return the covariance's λ_k, and √λ_k v_k in rows; by trials or entries, the fewer.

    Of trials there may be fewer than entries: (d, d) matrices are not made then.
    """
    count, size = residual.shape
    if count <= size:
        values, vectors = torch.linalg.eigh(residual @ residual.T / count)
        return values.clamp(min=0), (vectors.T @ residual / count**0.5).float()
    values, vectors = torch.linalg.eigh(residual.T @ residual / count)
    values = values.clamp(min=0)
    return values, (values.sqrt()[:, None] * vectors.T).float()


def _shrunk(values: Tensor, directions: Tensor, floor: float) -> Divide:
    """Return division by Σ λ_k v_k v_kᵀ + floor · I, without the matrix (Woodbury).

    Args:
        values: λ, shape (m,).
        directions: √λ_k v_k in rows, shape (m, d).
        floor: Variance of every direction.
    """
    weights = (1 / (values + floor)).float()

    def divide(shift: Tensor) -> Tensor:
        along = (shift @ directions.T) * weights
        return (shift - along @ directions) / floor

    return divide


def _tamed(score: Score, evidence: Evidence) -> Score:
    """Return scores whose extremes are logarithmic, so that a calibration's one slope fits them.

    The order of two classes stays.
    """
    centred = lambda trials: (values := score(trials)) - values.mean(dim=1, keepdim=True)
    scale = float(centred(evidence).abs().median()) or 1.0
    return lambda trials: (centred(trials) / scale).asinh()


def cosine(trials: Evidence, *, through: float = 1.0) -> Float[Tensor, "n classes"]:
    """Return the cosine of the upload and each hypothetical gradient; the best of all labels.

    What is known of other records is taken off the upload first.
    """
    hypotheses = _hypotheses(trials)
    left = trials.uploads - _others(trials, through * trials.weight)
    unit = lambda value: value / value.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    if left.ndim == 3:
        return torch.einsum("nkd,nld->nkl", unit(left), unit(hypotheses[:, 0])).amax(dim=2)
    cosines = torch.einsum("nd,nvld->nvl", unit(left), unit(hypotheses)).amax(dim=2)
    if cosines.shape[1] == 1:
        cosines = torch.cat([torch.zeros_like(cosines), cosines], dim=1)
    return cosines


def _likelihood(left: Tensor, weight: Tensor, half: Tensor) -> Tensor:
    """Return log p(left | class), up to a constant of the trial; labels are averaged over.

    Classes are the values of the secret, or, of uploads of several clients, whose it is.

    Args:
        left: The upload less what is expected without the record.
        weight: C⁻¹s, for every shift s that a class and a label make, under the covariance C.
        half: sᵀC⁻¹s / 2.
    """
    left = left.double()
    if left.ndim == 3:
        along = torch.einsum("nkd,nld->nkl", left, weight[:, 0]) - half
    else:
        along = torch.einsum("nd,nvld->nvl", left, weight) - half
    return along.logsumexp(dim=2)


def _hypotheses(evidence: Evidence) -> Tensor:
    assert evidence.hypotheses is not None
    return evidence.hypotheses


def _others(evidence: Evidence, share: float) -> Tensor | float:
    if evidence.others is None:
        return 0.0
    return share * (evidence.batch - 1) * evidence.others


def _of(values: Tensor, secrets: Tensor) -> Tensor:
    return values[torch.arange(len(secrets)), secrets]
