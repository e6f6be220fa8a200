"""Which vectors of a dictionary span a measured subspace: pursuit with a stop rule.

M. E. Davies, Y. C. Eldar, "Rank awareness in joint sparse recovery", IEEE Transactions on
Information Theory 2012, Algorithm 3 (rank-aware order-recursive matching pursuit).

The stop rule is ours (Morozov's discrepancy principle): measured directions are in units of their
own noise, and pursuit ends where what the picks leave of them is what noise leaves. Picks that are
not needed for that are taken back.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SIGMAS = 3.0  # above the mean of what noise leaves
GONE = 1e-9  # squared length of an atom that the picks span


@dataclass(frozen=True, eq=False)
class Picks:
    """Atoms that explain a subspace.

    Attributes:
        atoms: Rows of the dictionary, in the order in which they were picked.
        explained: Whether they leave no more than noise of the measurements, in all or in each
            direction.
        rank: Number of measured directions that noise does not make.
    """

    atoms: Int[Tensor, " picks"]
    explained: bool
    rank: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Rules:
    """What is known of the atoms before the measurement.

    Attributes:
        prior: Log-probability of each atom, up to a constant.
        groups: A number for each atom: the position that it stands at.
        limit: Picks at most of one group: the number of texts.
        most: Picks at most: the number of tokens.
    """

    prior: Float[Tensor, " atoms"] | None = None
    groups: Int[Tensor, " atoms"] | None = None
    limit: int | None = None
    most: int | None = None


def pursue(
    rows: Float[Tensor, "rows width"],
    atoms: Float[Tensor, "atoms width"],
    rules: Rules = Rules(),
) -> Picks:
    """Return the atoms that explain measurements.

    Args:
        rows: In units of their noise: of standard deviation 1 per entry.
        atoms: The dictionary.
        rules: What is known of it.
    """
    atoms = atoms.double() / atoms.double().norm(dim=1, keepdim=True)
    count, reduced = len(rows), rows.double()
    if count > rows.shape[1]:  # the same lengths and angles in fewer rows
        reduced = torch.linalg.qr(reduced, mode="r")[1]
    rank = len(strong_directions(reduced, count, rows.shape[1])) if count else 0
    picked, left = _greedy(reduced, count, atoms, rules)
    quiet = _is_noise(left, count, len(picked))
    if quiet:
        picked = _needed(reduced, count, atoms, picked)
    open_ = strong_directions(left, count, rows.shape[1] - len(picked))
    explained = quiet or not len(open_)
    return Picks(torch.tensor(picked, dtype=torch.long), explained, rank)


def strong_directions(
    rows: Float[Tensor, "rows width"], count: int, free: int
) -> Float[Tensor, "rank width"]:
    """Return an orthonormal basis of the directions that noise does not make.

    The edge is the largest singular value of a matrix of standard normal entries, √rows + √columns.

    Args:
        rows: Measurements in units of their noise.
        count: How many rows of noise there are in them.
        free: How many dimensions of noise.
    """
    _, singular, basis = torch.linalg.svd(rows, full_matrices=False)
    return basis[singular > count**0.5 + free**0.5]


def _greedy(rows: Tensor, count: int, atoms: Tensor, rules: Rules) -> tuple[list[int], Tensor]:
    width, left = rows.shape[1], rows
    most = min(width - 1, len(atoms), width if rules.most is None else rules.most)
    lengths = torch.ones(len(atoms), dtype=atoms.dtype)  # ‖P⊥a‖²
    basis, picked = rows.new_zeros(0, width), []
    while len(picked) < most and not _is_noise(left, count, len(picked)):
        open_ = strong_directions(left, count, width - len(picked))
        choice = _best(open_, atoms, lengths, rules)
        if choice is None:
            break
        rest = atoms[choice] - (atoms[choice] @ basis.T) @ basis
        rest = rest - (rest @ basis.T) @ basis  # once more, against rounding
        rest = rest / rest.norm()
        basis = torch.cat([basis, rest[None]])
        lengths = lengths - (atoms @ rest).square()
        lengths[choice] = 0.0
        left = _left(rows, basis)
        picked.append(choice)
        if rules.groups is not None and rules.limit is not None:
            same = rules.groups == rules.groups[choice]
            if int(same[picked].sum()) >= rules.limit:
                lengths[same] = 0.0
    return picked, left


def _best(open_: Tensor, atoms: Tensor, lengths: Tensor, rules: Rules) -> int | None:
    """Return the most likely atom: by what a direction at random reaches, and by its prior.

    A random direction's score is Beta-distributed, with (1 − s) to the power of half the directions
    that are neither open nor picked, up to a constant: its likelihood there.
    """
    usable = lengths > GONE
    if not bool(usable.any()) or not len(open_):
        return None
    score = (atoms @ open_.T).square().sum(dim=1) / lengths.clamp_min(GONE)
    free = max(2, atoms.shape[1] - len(open_)) / 2
    value = -free * torch.log1p(-score.clamp(0, 1 - 1e-12))
    if rules.prior is not None:
        value = value + rules.prior
    return int(value.masked_fill(~usable, -torch.inf).argmax())


def _left(rows: Tensor, basis: Tensor) -> Tensor:
    return rows - (rows @ basis.T) @ basis


def _is_noise(left: Tensor, count: int, picks: int) -> bool:
    """Return whether the squared sum is that of noise in as many entries as the picks leave free.

    A χ² of count · (width − picks) degrees of freedom.
    """
    freedom = count * (left.shape[1] - picks)
    return float(left.square().sum()) <= freedom + SIGMAS * (2 * freedom) ** 0.5


def _needed(rows: Tensor, count: int, atoms: Tensor, picked: list[int]) -> list[int]:
    """Return the picks without those that the others can do without, the least needed first."""
    while len(picked) > 1:
        worst = int(_costs(rows, atoms[picked]).argmin())
        rest = picked[:worst] + picked[worst + 1 :]
        basis = torch.linalg.qr(atoms[rest].T)[0].T
        if not _is_noise(_left(rows, basis), count, len(rest)):
            break
        picked = rest
    return picked


def _costs(rows: Tensor, chosen: Float[Tensor, "picks width"]) -> Float[Tensor, " picks"]:
    """Return by how much what is left grows without each pick.

    Of least squares, coefficient² / (inverse Gram matrix)ₖₖ.
    """
    inverse = torch.linalg.pinv(chosen @ chosen.T, hermitian=True)
    coefficients = rows @ chosen.T @ inverse
    return coefficients.square().sum(dim=0) / inverse.diagonal().clamp_min(1e-300)
