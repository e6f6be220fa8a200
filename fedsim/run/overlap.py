"""Whether the adversary's records repeat the clients': copies, rescaled, shifted or with noise.

Rows are compared by direction: each over its norm, its mean taken off first, so that contrast and
brightness do not matter. Noise of 5 % of a row's standard deviation turns it by about 0.05.

Natural rows have neighbours too, but in any number of dimensions at least as many between t and 2t
as within t. So at each t, rows with a private row within t and none in the ring around it, less
the rows with one in the ring only, count copies, however dense the data are. A copy in a ring where
natural neighbours stand goes uncounted: there nobody can tell.

How many private rows have a twin among private rows is no measure of what is natural: auxiliary
rows are drawn from the same set, and where every record stands there twice, both rates are high.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from fedsim.data import Federated

REACH = tuple(0.004 * 2**k for k in range(7))  # rounding to bytes alone turns an image by 0.004
DRAWN = 1000  # auxiliary rows that decide whether all are counted
LOCAL = 0.25  # share of all pairs beyond which a neighbourhood is none
SIGMAS = 3.0
CENTRED = 8  # features from which a row's mean is taken off; of fewer too little would stay
FLAT = 1e-5  # contrast that is rounding only
BLOCK, CELLS = 8192, 1 << 22  # private rows, and cosines, in memory at once


@dataclass(frozen=True)
class Overlap:
    """Auxiliary rows that repeat a private one, at the distance where copies stand out most.

    Attributes:
        rows: As many have a private row within that distance, natural neighbours included.
        total: All of them.
        distance: Between directions: the noise on a copy as a share of its standard deviation.
        surplus: Rows that natural neighbourhoods do not explain.
        natural: Rows with a private row in the ring only.
    """

    rows: int
    total: int
    distance: float
    surplus: int
    natural: int

    def exceeds(self, allowed: float) -> bool:
        """Return whether the surplus is significantly above a share of the rows."""
        expected = allowed * self.total
        spread = (expected + 2 * self.natural) ** 0.5
        return self.surplus - 1 >= expected + SIGMAS * spread  # 1: counts are whole


def check(federated: Federated, *, allowed: float, seed: int) -> None:
    """Refuse an adversary whose records repeat the clients'.

    Looks at `DRAWN` auxiliary rows, and at all if these hold too many copies.

    Args:
        federated: The rows of both.
        allowed: The share of rows that may be copies.
        seed: The run's.

    Raises:
        ConfigError: More rows are copies than that share and natural neighbourhoods explain.
    """
    rows = federated.auxiliary
    if not len(rows):
        return
    if federated.dataset.vocabulary is not None:
        _check_texts(federated, allowed)
        return
    order = torch.randperm(len(rows), generator=generator(seed, "overlap"))
    if not measure(federated, rows[order[:DRAWN]]).exceeds(allowed):
        return
    copies = measure(federated, rows)
    if copies.exceeds(allowed):
        raise ConfigError(
            f"auxiliary: must hold other records than the clients, got {copies.rows} of "
            f"{copies.total} rows that repeat one of theirs up to scale, shift and "
            f"{copies.distance:.1%} noise; take repeated rows out of the data, or allow more with "
            f"auxiliary.overlap, now {allowed}"
        )


def _check_texts(federated: Federated, allowed: float) -> None:
    """Refuse auxiliary texts that clients have, too, as far as the model reads them.

    Raises:
        ConfigError: Their share is above what is allowed.
    """
    inputs, rows = federated.dataset.inputs, federated.auxiliary
    private = {tuple(row) for row in inputs[torch.cat(federated.clients)].tolist()}
    copies = sum(tuple(row) in private for row in inputs[rows].tolist())
    if Overlap(copies, len(rows), 0.0, copies, 0).exceeds(allowed):
        raise ConfigError(
            f"auxiliary: must hold other texts than the clients, got {copies} of {len(rows)} that "
            "are token for token one of theirs; take repeated texts out of the data, or allow more "
            f"with auxiliary.overlap, now {allowed}"
        )


def measure(federated: Federated, auxiliary: Int[Tensor, " m"]) -> Overlap:
    """Return how many of these rows of the training set repeat a row of a client."""
    inputs, private = federated.dataset.inputs, torch.cat(federated.clients)
    near = torch.zeros(len(auxiliary), len(REACH), dtype=torch.int64)
    for rows in private.split(BLOCK):
        near += neighbours(inputs[rows], inputs[auxiliary])
    return overlap(near, len(private))


def overlap(near: Int[Tensor, "m reach"], num_private: int) -> Overlap:
    """Return how many auxiliary rows are copies, from the counts of their `neighbours`.

    Distances within which a quarter of all pairs lie are left out: directions of a single feature,
    or of features of which one is far larger than the others, say nothing.

    Args:
        near: Private rows within each distance of `REACH` of each auxiliary row.
        num_private: Of all private rows.
    """
    within, beyond = near[:, :-1] > 0, near[:, 1:] > near[:, :-1]
    natural = (beyond & ~within).sum(dim=0)
    surplus = (within & ~beyond).sum(dim=0) - natural
    local = near[:, 1:].float().mean(dim=0) <= LOCAL * num_private
    evidence = torch.where(local, surplus - SIGMAS * (2 * natural).sqrt(), -torch.inf).tolist()
    best = evidence.index(max(evidence))
    return Overlap(
        rows=int(within[:, best].sum()),
        total=len(near),
        distance=REACH[best],
        surplus=int(surplus[best]) if local[best] else 0,
        natural=int(natural[best]),
    )


def neighbours(
    private: Float[Tensor, "n *shape"], auxiliary: Float[Tensor, "m *shape"], *, cells: int = CELLS
) -> Int[Tensor, "m reach"]:
    """Return how many private rows lie within each distance of `REACH` of each auxiliary row.

    Args:
        private: Rows of features, or images.
        auxiliary: Likewise.
        cells: So many cosines are in memory at once.
    """
    directions, squares = _directions(auxiliary), torch.tensor(REACH).square()
    width, shells = len(REACH), torch.zeros(len(auxiliary) * len(REACH), dtype=torch.int64)
    for block in private.split(max(1, cells // len(auxiliary))):
        apart = 2 - 2 * directions @ _directions(block).T
        row, column = (apart <= squares[-1]).nonzero(as_tuple=True)
        shell = torch.bucketize(apart[row, column], squares)
        shells += torch.bincount(row * width + shell, minlength=len(shells))
    return shells.view(-1, width).cumsum(dim=1)


def _directions(rows: Shaped[Tensor, "n *shape"]) -> Float[Tensor, "n features"]:
    """Return unit rows; zeros for a row without contrast, which is a copy of none."""
    flat = rows.flatten(1).float()
    mean = flat.mean(dim=1, keepdim=True) if flat.shape[1] >= CENTRED else 0
    centred = flat - mean
    length = centred.norm(dim=1, keepdim=True)
    contrasted = length > FLAT * flat.norm(dim=1, keepdim=True)
    return torch.where(contrasted, centred / length, 0.0)
