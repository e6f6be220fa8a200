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
        explained: Whether what they leave of the measurements is no more than noise.
    """

    atoms: Int[Tensor, " picks"]
    explained: bool


def strong_directions(rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rank width"]:
    """Return the right singular vectors that noise does not make, times their singular values.

    The edge is the largest singular value of a matrix of standard normal entries, √rows + √width.

    Args:
        rows: Measurements in units of their noise: of standard deviation 1 per entry.
    """
    _, singular, basis = torch.linalg.svd(rows.double(), full_matrices=False)
    edge = rows.shape[0] ** 0.5 + rows.shape[1] ** 0.5
    kept = singular > edge
    return singular[kept, None] * basis[kept]


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
    directions: Float[Tensor, "rank width"],
    atoms: Float[Tensor, "atoms width"],
    rules: Rules = Rules(),
) -> Picks:
    """Return the atoms that explain measured directions.

    Args:
        directions: Orthogonal rows in units of their noise (`strong_directions`).
        atoms: The dictionary.
        rules: What is known of it.
    """
    atoms = atoms.double() / atoms.double().norm(dim=1, keepdim=True)
    picked, left = _greedy(directions, atoms, rules)
    explained = _is_noise(left, len(picked), directions.shape)
    if explained:
        picked = _needed(directions, atoms, picked)
    return Picks(torch.tensor(picked, dtype=torch.long), explained)


def _greedy(directions: Tensor, atoms: Tensor, rules: Rules) -> tuple[list[int], Tensor]:
    width, left = directions.shape[1], directions
    most = min(width - 1, len(atoms), width if rules.most is None else rules.most)
    lengths = torch.ones(len(atoms), dtype=atoms.dtype)  # ‖P⊥a‖²
    basis, picked = directions.new_zeros(0, width), []
    while len(picked) < most and not _is_noise(left, len(picked), directions.shape):
        choice = _best(_orthonormal(left), atoms, lengths, rules)
        if choice is None:
            break
        rest = atoms[choice] - (atoms[choice] @ basis.T) @ basis
        rest = rest - (rest @ basis.T) @ basis  # once more, against rounding
        rest = rest / rest.norm()
        basis = torch.cat([basis, rest[None]])
        lengths = lengths - (atoms @ rest).square()
        lengths[choice] = 0.0
        left = _left(directions, basis)
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


def _orthonormal(left: Float[Tensor, "rank width"]) -> Float[Tensor, "kept width"]:
    """Return a basis of what the picks leave, without directions that they leave by rounding."""
    _, singular, basis = torch.linalg.svd(left, full_matrices=False)
    return basis[singular > max(1.0, 1e-9 * float(singular[0]))]


def _left(directions: Tensor, basis: Tensor) -> Tensor:
    return directions - (directions @ basis.T) @ basis


def _is_noise(left: Tensor, picks: int, shape: tuple[int, ...] | torch.Size) -> bool:
    """Return whether the squared sum is that of noise in as many entries as the picks leave free.

    A χ² of rank · (width − picks) degrees of freedom.
    """
    freedom = shape[0] * (shape[1] - picks)
    edge = freedom + SIGMAS * (2 * freedom) ** 0.5
    return float(left.square().sum()) <= edge


def _needed(directions: Tensor, atoms: Tensor, picked: list[int]) -> list[int]:
    """Return the picks without those that the others can do without, the least needed first."""
    while len(picked) > 1:
        costs = _costs(directions, atoms[picked])
        worst = int(costs.argmin())
        rest = picked[:worst] + picked[worst + 1 :]
        basis = torch.linalg.qr(atoms[rest].T)[0].T
        if not _is_noise(_left(directions, basis), len(rest), directions.shape):
            break
        picked = rest
    return picked


def _costs(directions: Tensor, chosen: Float[Tensor, "picks width"]) -> Float[Tensor, " picks"]:
    """Return by how much what is left grows without each pick.

    Of least squares, coefficient² / (inverse Gram matrix)ₖₖ.
    """
    inverse = torch.linalg.pinv(chosen @ chosen.T, hermitian=True)
    coefficients = directions @ chosen.T @ inverse
    return coefficients.square().sum(dim=0) / inverse.diagonal().clamp_min(1e-300)
