"""Ways to undo what a defense does to an update, learned from rehearsed pairs.

Nothing here knows any particular defense: it sees updates without and with it.
"""

from collections import ChainMap
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedsim.core.memory import Memory
from fedsim.core.types import Observation, View

PRIOR = 8.0  # pairs of an entry that its layer's own slope is worth

Correct = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Tensors of an update → the same, corrected."""


def learn(
    plain: Sequence[Sequence[Tensor]], uploaded: Sequence[Sequence[Tensor]]
) -> dict[str, Correct]:
    """Return, by name, ways to undo the defense.

    Args:
        plain: Some tensors of each rehearsed update, without the defense.
        uploaded: The same with it.

    Returns:
        `none`; `scale` divides each tensor by the share of it that the defense lets through
        (⟨u, g⟩/⟨g, g⟩), for clipping; `expect` is the linear expectation E[g | u] of every entry,
        for noise and signs.
    """
    g = [torch.stack(values).double() for values in zip(*plain, strict=True)]
    u = [torch.stack(values).double() for values in zip(*uploaded, strict=True)]
    through = [_ratio((a * b).sum(), b.square().sum()) for a, b in zip(u, g, strict=True)]
    lines = [_line(a, b) for a, b in zip(u, g, strict=True)]

    def scale(parts: Sequence[Tensor]) -> list[Tensor]:
        return [part / (t if t > 0 else 1.0) for part, t in zip(parts, through, strict=True)]

    def expect(parts: Sequence[Tensor]) -> list[Tensor]:
        return [
            mean + slope * (part.double() - middle)
            for part, (mean, slope, middle) in zip(parts, lines, strict=True)
        ]

    return {"none": lambda parts: parts, "scale": scale, "expect": expect}


def whiten(uploaded: Sequence[Sequence[Tensor]]) -> Correct:
    """Return how to divide every entry's deviation from its mean by its variance among uploads.

    What an entry says of one example is the less, the more it varies with everything else: with
    the other examples, and with a defense's noise. This is the linear discriminant between two
    means under a diagonal covariance.

    Args:
        uploaded: Some tensors of each rehearsed update, with the defense.
    """
    stacked = [torch.stack(values) for values in zip(*uploaded, strict=True)]
    means = [values.mean(dim=0) for values in stacked]
    variances = [(a - m).square().mean(dim=0) for a, m in zip(stacked, means, strict=True)]
    total = sum(int(v.numel()) for v in variances)
    overall = sum(float(v.sum(dtype=torch.float64)) for v in variances) / max(1, total)
    weight = PRIOR / len(uploaded)
    # An entry's few values are drawn towards its tensor's mean, and that towards the update's.
    floors = [weight * (v.mean() + overall / 100) + 1e-30 for v in variances]

    def whitened(parts: Sequence[Tensor]) -> list[Tensor]:
        entries = zip(parts, means, variances, floors, strict=True)
        return [(part - mean) / (variance + floor) for part, mean, variance, floor in entries]

    return whitened


def place_at(
    correct: Correct, plain: Sequence[Sequence[Tensor]], uploaded: Sequence[Sequence[Tensor]]
) -> Correct:
    """Return a correction's deviation from its mean, added to the mean update at its length.

    A score along an update needs neither; a model that moves by the update needs both.

    Args:
        correct: Any correction.
        plain: Some tensors of each rehearsed update, without the defense.
        uploaded: The same with it.
    """
    changed = [correct(values) for values in uploaded]
    centres = [torch.stack(values).mean(dim=0) for values in zip(*changed, strict=True)]
    means = [torch.stack(values).mean(dim=0) for values in zip(*plain, strict=True)]
    product = square = 0.0
    for ours, theirs in zip(changed, plain, strict=True):
        for c, centre, g, mean in zip(ours, centres, theirs, means, strict=True):
            product += float(((c - centre) * (g - mean)).sum())
            square += float((c - centre).square().sum())
    length = product / square if square > 0 else 0.0

    def placed(parts: Sequence[Tensor]) -> list[Tensor]:
        entries = zip(correct(parts), centres, means, strict=True)
        return [mean + length * (part - centre) for part, centre, mean in entries]

    return placed


def corrected(
    observation: Observation, names: Sequence[str], correct: Correct, memory: Memory
) -> View:
    """Return a view with these tensors of the update corrected; the others are read as they are.

    Args:
        observation: With the update.
        names: Which tensors.
        correct: How.
        memory: Of the view.
    """
    delta = observation.update.delta
    parts = [delta[name] for name in names]
    changed = [new.to(old.dtype) for new, old in zip(correct(parts), parts, strict=True)]
    overlay = ChainMap(dict(zip(names, changed, strict=True)), delta)  # type: ignore[arg-type]
    update = replace(observation.update, delta=overlay)
    return View([replace(observation, update=update)], memory=memory)


def _line(u: Float[Tensor, "n ..."], g: Float[Tensor, "n ..."]) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean of g, slope of g on u, and mean of u, per entry.

    Few pairs tell little of one entry: its slope is drawn towards that of the whole layer.
    """
    mean, middle = g.mean(dim=0), u.mean(dim=0)
    product, square = ((g - mean) * (u - middle)).mean(dim=0), (u - middle).square().mean(dim=0)
    layer = _ratio(product.sum(), square.sum())
    weight = PRIOR / len(u)
    slope = (product + weight * layer * square.mean()) / (square + weight * square.mean() + 1e-300)
    return mean, slope, middle


def _ratio(above: Tensor, below: Tensor) -> float:
    return float(above / below) if float(below) > 0 else 0.0
