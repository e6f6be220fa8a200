"""Restarts are laid over each other before their mean is taken: examples, then places.

H. Yin et al., "See through Gradients", CVPR 2021, Eqs. 11 and 12: each restart is drawn to the mean
of all after registration to it. The paper registers by RANSAC-flow; here examples of one label are
paired by optimal assignment and each is shifted, by whole pixels and at most `REACH` of the side,
to where it correlates best with the mean of all restarts.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.inversion.priors import Images

REACH = 1 / 8  # of the height and of the width


def disagreement(
    images: Images, labels: Int[Tensor, "rows batch"] | None
) -> Float[Tensor, " rows"]:
    """Return the mean squared distance of each row from the mean of all rows, registered to it.

    That mean stands still while rows are drawn to it.

    Args:
        images: Guesses; those that have no height and width are not shifted.
        labels: Of their examples, of which those of one label may change places; None where none
            may.
    """
    with torch.no_grad():
        middle = consensus(images.detach(), labels)
    return (images - middle).square().flatten(1).mean(dim=1)


def consensus(images: Images, labels: Int[Tensor, "rows batch"] | None) -> Images:
    """Return for each row the mean of all rows, registered to it."""
    rows, batch = images.shape[:2]
    order = torch.arange(batch).expand(rows, batch)
    if labels is not None:
        order = _paired(images, labels)
    every = torch.arange(rows).unsqueeze(1)
    laid = images[every, order]
    moves = _moves(laid, laid.mean(dim=0)) if images.ndim == 5 else None
    middle = (laid if moves is None else _shifted(laid, moves)).mean(dim=0).expand_as(laid)
    back = middle if moves is None else _shifted(middle, -moves)
    return back[every, order.argsort(dim=1)]


def _paired(images: Images, labels: Int[Tensor, "rows batch"]) -> Int[Tensor, "rows batch"]:
    """Return for each row which of its examples goes where, so that they are like the first row's.

    Rows whose labels are not the first one's, or have none twice, are only sorted by label.
    """
    from scipy.optimize import linear_sum_assignment

    order = labels.argsort(dim=1, stable=True)
    ordered = labels.gather(1, order)
    twice = bool((ordered[0, 1:] == ordered[0, :-1]).any())
    first = images[0, order[0]].flatten(1)
    for row in range(1, len(images)):
        if not twice or not torch.equal(ordered[row], ordered[0]):
            continue
        apart = torch.cdist(first, images[row, order[row]].flatten(1)).square()
        other = ordered[0].unsqueeze(1) != ordered[row]
        apart = apart.masked_fill(other, 1 + len(first) * float(apart.max()))
        order[row] = order[row, torch.as_tensor(linear_sum_assignment(apart.double().numpy())[1])]
    return order


def _moves(images: Images, anchor: Float[Tensor, "batch *shape"]) -> Int[Tensor, "2 rows batch"]:
    """Return how far down and right each example goes to correlate best with the anchor's."""
    height, width = images.shape[-2:]
    flat = lambda of: of - of.mean(dim=(-2, -1), keepdim=True)
    of_anchor, of_images = (torch.fft.rfft2(flat(part)) for part in (anchor, images))
    alike = torch.fft.irfft2(of_anchor * of_images.conj(), s=(height, width)).sum(dim=2)
    down, right = (torch.arange(size) for size in (height, width))
    far = torch.minimum(down, height - down).view(-1, 1) > REACH * height
    far = far | (torch.minimum(right, width - right) > REACH * width)
    best = alike.masked_fill(far, -torch.inf).flatten(2).argmax(dim=2)
    return torch.stack([best // width, best % width])


def _shifted(images: Images, moves: Int[Tensor, "2 rows batch"]) -> Images:
    """Return images that went so far, around the edges."""
    channels, height, width = images.shape[2:]
    rows = (torch.arange(height) - moves[0].unsqueeze(-1)) % height
    columns = (torch.arange(width) - moves[1].unsqueeze(-1)) % width
    down = rows[:, :, None, :, None].expand(-1, -1, channels, -1, width)
    right = columns[:, :, None, None, :].expand(-1, -1, channels, height, -1)
    return images.gather(3, down).gather(4, right)
