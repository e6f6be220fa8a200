"""Inputs of a fully connected first layer, from its gradient alone.

Single examples: L. T. Phong, Y. Aono, T. Hayashi, L. Wang, S. Moriai, "Privacy-preserving deep
learning via additively homomorphic encryption", 2018: a unit's weight gradient over its bias
gradient is the input. In a batch that holds for a unit on which one example alone is active.

Batches behind ReLU: D. I. Dimitrov, M. Baader, M. N. Müller, M. Vechev, "SPEAR: exact gradient
inversion of batches in federated learning", NeurIPS 2024. The weight gradient ZᵀX, with dL/dz in
the rows of Z, has rank B; of all ways to take it apart, the true one has columns of Z with a zero
wherever an example is not active, which no other combination has.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

AGREE = 1e-5  # relative distance of two units' ratios that show the same example
ALIVE = 1e-9  # gradient below this share of the largest is none
NOISE = 0.03  # the first singular value too many, of the last one of B, from which on B is not said
TRIES = 30_000  # of SPEAR's draws
BLOCK = 500  # of them together
ZERO = 1e-9  # entries below this share of a column's largest are zero, or below what noise makes
FACTOR = 30.0  # of the noise
CANDIDATES = 8  # candidates per example that are kept


@dataclass(frozen=True, eq=False)
class AgreedInputs:
    """Inputs found.

    Attributes:
        inputs: Shape (n, features).
        units: On how many units each was seen, shape (n,).
    """

    inputs: Float[Tensor, "n features"]
    units: Tensor


def ratios(
    grad_weight: Float[Tensor, "units features"], grad_bias: Float[Tensor, " units"], count: int
) -> AgreedInputs:
    """Return the inputs on which most units agree, at most `count`.

    A unit with several examples gives a mixture of them, on which no second one agrees; units that
    stand alone come last, those that mix least first, as far as their ratios' sizes tell.

    Args:
        grad_weight: dL/dW.
        grad_bias: dL/db.
        count: How many inputs there are.
    """
    alive = grad_bias.abs() > ALIVE * grad_bias.abs().max()
    weight, bias = grad_weight[alive], grad_bias[alive]
    if count == 1:
        mean = bias @ weight / bias.square().sum()
        return AgreedInputs(mean[None], torch.tensor([len(bias)]))
    rows = weight / bias[:, None]
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    near = apart <= AGREE * rows.norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)
    agreeing, left = near.sum(dim=1), torch.ones(len(rows), dtype=torch.bool)
    inputs, units = [], []
    order = sorted(range(len(rows)), key=lambda k: (-int(agreeing[k]), float(rows[k].norm())))
    for k in order:
        if left[k] and len(inputs) < count:
            same = near[k] & left
            unit_bias = bias[same]
            inputs.append(unit_bias @ weight[same] / unit_bias.square().sum())
            units.append(int(same.sum()))
            left &= ~near[k]
    return AgreedInputs(torch.stack(inputs), torch.tensor(units))


def spear(
    grad_weight: Float[Tensor, "units features"],
    grad_bias: Float[Tensor, " units"],
    weight: Float[Tensor, "units features"],
    bias: Float[Tensor, " units"],
    count: int,
    generator: Generator,
) -> Float[Tensor, "n features"]:
    """Return all inputs of a ReLU layer's batch, exact, in any order.

    Args:
        grad_weight: dL/dW, float64.
        grad_bias: dL/db.
        weight: W.
        bias: b.
        count: How many inputs there are.
        generator: Draws which units are taken to be inactive.

    Raises:
        ValueError: The batch is too large for the layer, or no answer has the zeros that its own
            inputs would give.
    """
    alive = grad_weight.norm(dim=1) > ALIVE * grad_weight.norm(dim=1).max()
    if int(alive.sum()) < count:
        raise ValueError(f"spear: as many units as examples must be active, {count}")
    left, values, _ = torch.linalg.svd(grad_weight[alive], full_matrices=False)
    noise = float(values[count] / values[count - 1]) if len(values) > count else 0.0
    if not noise < NOISE:
        raise ValueError(
            f"spear: the gradient must have rank {count}, one per example; its next singular "
            f"value is {noise:.2g} of the last"
        )
    zero = max(ZERO, FACTOR * noise)
    factors = left[:, :count] * values[:count]  # (units, B): Z = factors · Q for some Q
    grad_weight, grad_bias = grad_weight[alive], grad_bias[alive]
    weight, bias = weight[alive], bias[alive]
    best = 0.0
    for columns in _sparsest(factors, zero, generator):
        scales = torch.linalg.lstsq(columns, grad_bias[:, None]).solution[:, 0]
        z = columns * scales
        inputs = torch.linalg.lstsq(z, grad_weight).solution
        active = (inputs @ weight.T + bias > 0).T
        nonzero = z.abs() > zero * z.abs().max(dim=0).values
        if torch.equal(active, nonzero):
            return inputs
        best = max(best, float((active == nonzero).double().mean()))
    raise ValueError(
        f"spear: the zeros of the gradients found must be those of the inputs found, at most "
        f"{best:.1%} of them were in {TRIES} draws"
    )


def _sparsest(
    factors: Float[Tensor, "units b"], zero: float, generator: Generator
) -> Iterator[Float[Tensor, "units b"]]:
    """Yield B independent columns factors·q with most zeros, more often so with every draw.

    A q that is orthogonal to B − 1 rows on which an example is inactive is that example's.
    """
    rank = factors.shape[1]
    if rank == 1:
        yield factors
        return
    unit = factors / factors.norm(dim=1, keepdim=True)
    directions, zeros = factors.new_zeros(0, rank), torch.zeros(0, dtype=torch.int64)
    before = None
    for _ in range(TRIES // BLOCK):
        rows = torch.rand(BLOCK, len(unit), generator=generator).topk(rank - 1, dim=1).indices
        q = torch.linalg.svd(unit[rows])[2][:, -1]  # orthogonal to the rows
        count = ((unit @ q.T).abs() < zero).sum(dim=0)
        more = count >= rank  # zeros beyond those asked for
        directions, zeros = torch.cat([directions, q[more]]), torch.cat([zeros, count[more]])
        if len(directions):
            directions, zeros = _different(directions, zeros, zero, CANDIDATES * rank)
        chosen = _independent(directions, rank, zero) if len(directions) else None
        if chosen is not None and (before is None or not torch.equal(chosen, before)):
            before = chosen
            yield factors @ chosen.T


def _different(directions: Tensor, zeros: Tensor, zero: float, most: int) -> tuple[Tensor, Tensor]:
    """Return each direction once, those with most zeros first."""
    order = zeros.argsort(descending=True, stable=True)
    directions, zeros = directions[order], zeros[order]
    same = (directions @ directions.T).abs() > 1 - max(zero, 1e-6)
    first = same.int().argmax(dim=1) == torch.arange(len(directions))
    return directions[first][:most], zeros[first][:most]


def _independent(directions: Tensor, rank: int, zero: float) -> Tensor | None:
    """Return the first directions that are independent of each other; None where there are less."""
    chosen = directions[:0]
    for direction in directions:
        extended = torch.cat([chosen, direction[None]])
        if float(torch.linalg.svdvals(extended)[-1]) > max(zero, 1e-6):
            chosen = extended
        if len(chosen) == rank:
            return chosen
    return None
