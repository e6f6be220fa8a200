"""Pictures whose tokens lie in the spans of an update: descents that put stray patches back.

fedsim's own. The misfit of a picture (`token_misfit`) is zero at every picture of the batch, and
each descent goes to one of them. Where a patch of another picture stands in it, attention mixes
both, and the tokens of the smaller number lie farther outside: these patches are filled from their
surroundings, and the descent goes on. Seams between patches are held down until most patches are
those of one picture. Pictures that no descent came to begin with what others had of them, or at
random, with a misfit that is divided by the distance from the pictures that are there (deflation:
P. E. Farrell, Á. Birkisson, S. W. Funke, SIAM J. Sci. Comput. 2015).
"""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from adversary.inversion.descent import Evaluate
from adversary.inversion.lbfgs import lbfgs
from adversary.inversion.seams import Seams
from adversary.inversion.token_misfit import GREY, Misfit
from fedsim.core import progress

SOLVED = 1e-3  # misfit of a picture of the batch, in that of grey
STRAY = 4.0  # times the median misfit of a picture's patches
SMOOTHED = (1.0, 0.3, 0.1, 0.0, 0.0)  # weights of the seams in each stage of a descent
DISTINCT = 0.05  # root mean squared difference of different pictures, and of different patches
SPREAD, TINT = 0.05, 0.3  # of starts about grey: of pixels, and of whole channels
ROUNDS = 4  # of further descents for pictures that are missing or not solved
DEFLATED = 0.03  # mean squared difference at which a misfit counts twice
NEAREST = 1e-6  # mean squared difference below which it does not count
FILLS = 60  # averages over neighbours that fill a patch


@dataclass(frozen=True, eq=False)
class Pictures:
    """What descents came to.

    Attributes:
        points: One row per picture, the best explained first, shape (n, numbers).
        misfits: Of each, in that of grey.
    """

    points: Float[Tensor, "k n"]
    misfits: Float[Tensor, " k"]

    @property
    def solved(self) -> int:
        """How many lie in all spans."""
        return int((self.misfits < SOLVED).sum())


def pictures(
    misfit: Misfit, count: int, generator: Generator, *, restarts: int, iterations: int
) -> Pictures:
    """Return at most as many distinct pictures as there are examples.

    Args:
        misfit: Of pictures.
        count: Examples.
        generator: Draws where descents begin.
        restarts: Descents that begin at random, for each example.
        iterations: Of each descent.
    """
    seams = Seams(misfit.shape, misfit.pixels)
    start = _starts(misfit, restarts * count, generator)
    points, losses = _descended(misfit, seams, start, iterations, SMOOTHED)
    for _ in progress.steps(ROUNDS, "rounds"):
        kept = distinct(points, losses, count)
        if len(kept) == count and float(losses[kept[-1]]) < SOLVED:
            break
        unsolved = [row for row in kept if float(losses[row]) >= SOLVED]
        again = [_descended(misfit, seams, points[unsolved], iterations, (0.0, 0.0))]
        if count > 1:
            solved = [row for row in kept if row not in unsolved] or kept[:1]
            drawn = _starts(misfit, max(1, restarts), generator)
            fresh = torch.cat([_unlike(misfit, points, points[solved]), drawn])
            away = points[solved]
            again.append(_descended(misfit, seams, fresh, iterations, SMOOTHED, away))
        points = torch.cat([points, *(it[0] for it in again)])
        losses = torch.cat([losses, *(it[1] for it in again)])
    kept = distinct(points, losses, count)
    return Pictures(points[kept], losses[kept])


def polished(misfit: Misfit, answer: Pictures, iterations: int) -> Pictures:
    """Return the pictures after another descent, as of a misfit of more bits."""
    best = lbfgs(misfit, answer.points.to(misfit.dtype), steps=iterations)
    return Pictures(best.points, best.losses)


def distinct(
    points: Float[Tensor, "rows n"], losses: Float[Tensor, " rows"], count: int
) -> list[int]:
    """Return rows of the lowest losses that are not the same picture, at most `count`."""
    chosen: list[int] = []
    for row in losses.argsort().tolist():
        apart = [(points[row] - points[other]).square().mean().sqrt() for other in chosen]
        if len(chosen) < count and all(float(it) > DISTINCT for it in apart):
            chosen.append(row)
    return chosen


def _starts(misfit: Misfit, rows: int, generator: Generator) -> Tensor:
    pixels = torch.rand(rows, *misfit.shape, generator=generator)
    channels = torch.rand(rows, misfit.shape[0], 1, 1, generator=generator)
    tints = GREY + TINT * (2 * channels - 1)
    return (tints + SPREAD * (2 * pixels - 1)).flatten(1).to(misfit.dtype)


def _descended(
    misfit: Misfit,
    seams: Seams,
    points: Tensor,
    iterations: int,
    weights: tuple[float, ...],
    away: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return where descents end and their misfit; stray patches are filled between stages."""
    if not len(points):
        return points, points.new_zeros(0)
    for stage, weight in enumerate(weights):
        if stage or not weights[0]:
            points = _put_back(misfit, points)
        evaluate = misfit if away is None else _deflated(misfit, away)
        evaluate = _with_seams(evaluate, misfit, seams, weight) if weight else evaluate
        points = lbfgs(evaluate, points, steps=max(2, iterations // len(weights))).points
    return points, misfit(points)[0]


def _deflated(misfit: Misfit, away: Float[Tensor, "k n"]) -> Evaluate:
    """Return the misfit times 1 + DEFLATED/(mean squared distance) for each picture to stay off."""

    def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
        losses, slopes = misfit(points)
        for picture in away:
            apart = points - picture
            near = apart.square().mean(dim=1, keepdim=True).clamp(min=NEAREST)
            factor = 1 + DEFLATED / near
            turn = -2 * DEFLATED / near.square() * apart / points.shape[1]
            slopes = factor * slopes + losses.unsqueeze(1) * turn
            losses = losses * factor.squeeze(1)
        return losses, slopes

    return evaluate


def _with_seams(within: Evaluate, misfit: Misfit, seams: Seams, weight: float) -> Evaluate:
    def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
        losses, slopes = within(points)
        with torch.enable_grad():
            v = points.detach().requires_grad_()
            steps = seams.of(v.unflatten(1, misfit.shape))
            (slope,) = torch.autograd.grad(steps.sum(), v)
        return losses + weight * steps.detach(), slopes + weight * slope

    return evaluate


def _put_back(misfit: Misfit, points: Tensor) -> Tensor:
    """Return points whose stray patches are filled from what surrounds them."""
    each = misfit.patches(points)
    stray = each > STRAY * each.median(dim=1, keepdim=True).values
    return filled(points, stray, misfit)


def filled(
    points: Float[Tensor, "rows n"], empty: Bool[Tensor, "rows patches"], misfit: Misfit
) -> Float[Tensor, "rows n"]:
    """Return points with patches that are the mean of their surroundings."""
    mask = torch.zeros(len(points), prod(misfit.shape), dtype=torch.bool)
    rows, places = empty.nonzero(as_tuple=True)
    mask[rows.unsqueeze(1), misfit.pixels[places]] = True
    hole = mask.unflatten(1, misfit.shape)
    images = points.unflatten(1, misfit.shape).masked_fill(hole, GREY)
    for _ in range(FILLS):
        around = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
        beside = around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
        above = around[..., :-2, 1:-1] + around[..., 2:, 1:-1]
        images = torch.where(hole, (beside + above) / 4, images)
    return images.flatten(1)


def _unlike(misfit: Misfit, points: Tensor, solved: Float[Tensor, "k n"]) -> Float[Tensor, "1 n"]:
    """Return a start of patches that descents have and solved pictures do not; others are filled.

    Of several at one place the one counts whose token lies least outside.
    """
    pixels = misfit.pixels
    pool, each = points[:, pixels], misfit.patches(points)
    apart = torch.stack([(pool - it[pixels]).square().mean(dim=2) for it in solved]).amin(dim=0)
    value, best = each.masked_fill(apart < DISTINCT**2, torch.inf).min(dim=0)
    start = points[:1].clone()
    start[0, pixels] = pool[best, torch.arange(len(pixels))]
    return filled(start, ~torch.isfinite(value)[None], misfit)
