"""Magnitude pruning: only the largest entries of an update are uploaded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from defenses.defense import Defense, State, no_bound, no_state, same_bound
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.params import add, subtract
from fedsim.core.types import Params

_SAMPLE = 2**15  # entries that the threshold is first guessed from


def prune(
    *,
    rate: float = 0.9,
    per_layer: bool = False,
    error_feedback: bool = False,
    momentum: float = 0.0,
) -> Defense:
    """Upload the largest entries by magnitude and zero the rest.

    Of n entries exactly max(1, round((1 − rate)·n)) are uploaded; of equal ones, the first.
    Promises no privacy: what is uploaded is exact, and error feedback uploads the rest later.

    Source: Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, algorithm 1
    (error feedback); Lin, Han, Mao, Wang, Dally, "Deep Gradient Compression", ICLR 2018, section
    3.2 (momentum correction) and 3.3 (momentum factor masking), without its clipping and warm-up.

    Args:
        rate: Share of entries that are zeroed; in [0, 1).
        per_layer: Of every tensor by itself, instead of the whole update.
        error_feedback: Keep what was zeroed in the client's state and add it to its next update.
        momentum: Heavy-ball momentum of the updates, before the residual; in [0, 1).

    Raises:
        ValueError: `rate` or `momentum` is outside [0, 1), or momentum has no error feedback.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate: must be at least 0 and below 1, got {rate}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: must be at least 0 and below 1, got {momentum}")
    if momentum and not error_feedback:
        raise ValueError(f"momentum: must be 0 without error_feedback, got {momentum}")

    fate = "come later" if error_feedback else "are hidden"
    pruning = _Pruning(1 - rate, per_layer, momentum)
    return Defense(
        name="prune",
        apply=pruning.with_memory if error_feedback else pruning.without_memory,
        init=pruning.memory if error_feedback else no_state,
        promise=Promise(statement=f"small entries {fate}; large ones are exact"),
        bound=no_bound if error_feedback else same_bound,
    )


@dataclass(frozen=True)
class _Pruning:
    """The functions of `prune`.

    Attributes:
        share: Of the entries, those uploaded.
        per_layer: Of every tensor by itself.
        momentum: Of the updates.
    """

    share: float
    per_layer: bool
    momentum: float

    def memory(self, params: Params) -> State:
        """Return the memory before the first round: zeros."""
        return {
            f"{memory}.{name}": torch.zeros_like(value)
            for memory in (("residual", "velocity") if self.momentum else ("residual",))
            for name, value in params.items()
        }

    def without_memory(
        self,
        params: Params,
        state: State,
        generator: Generator,  # noqa: ARG002
    ) -> tuple[dict[str, Tensor], State]:
        """Return the largest entries."""
        return self._selected(params), state

    def with_memory(
        self,
        params: Params,
        state: State,
        generator: Generator,  # noqa: ARG002
    ) -> tuple[dict[str, Tensor], State]:
        """Return the largest entries of update and residual, and the rest as new residual."""
        residual = {name: state[f"residual.{name}"] for name in params}
        velocity = params
        if self.momentum:
            velocity = {
                n: v.add(state[f"velocity.{n}"], alpha=self.momentum) for n, v in params.items()
            }
        accumulated = add(residual, velocity)
        sent = self._selected(accumulated)
        after = {f"residual.{n}": value for n, value in subtract(accumulated, sent).items()}
        if self.momentum:
            # clone().eq_(0) is a mask in the tensor's own dtype, three times faster than bool.
            after |= {f"velocity.{n}": sent[n].clone().eq_(0).mul_(velocity[n]) for n in params}
        return sent, after

    def _selected(self, params: Params) -> dict[str, Tensor]:
        groups = [[name] for name in params] if self.per_layer else [list(params)]
        selected: dict[str, Tensor] = {}
        for names in groups:
            values = _largest([params[name] for name in names], self.share)
            selected |= dict(zip(names, values, strict=True))
        return selected


def _largest(values: Sequence[Tensor], share: float) -> list[Tensor]:
    """Return `values` with all but the given share of their entries zeroed, smallest first.

    An entry that is not a number stays, so that the upload fails instead of hiding it.
    """
    dtype = torch.float32
    for value in values:
        dtype = torch.promote_types(dtype, value.dtype)
    wide = [value.detach().to(dtype).contiguous() for value in values]
    size = sum(value.numel() for value in wide)
    if not size:
        return [value.clone() for value in values]
    threshold, surplus = _threshold(wide, size, max(1, round(share * size)))
    # hardshrink zeroes all of magnitude ≤ λ in one pass over the memory; a mask takes seven.
    below = float(np.nextafter(threshold, threshold.dtype.type(0)))
    pruned = [nn.functional.hardshrink(value, below) for value in wide]
    for value in reversed(pruned):
        if surplus == 0:
            break
        entries = value.view(-1).numpy()
        equal = np.flatnonzero(np.abs(entries) == threshold)[-surplus:]
        entries[equal] = 0
        surplus -= len(equal)
    return [new.to(old.dtype) for new, old in zip(pruned, values, strict=True)]


def _threshold(values: Sequence[Tensor], size: int, keep: int) -> tuple[np.floating, int]:
    """Return the `keep`-th largest magnitude, and how many entries equal to it are too many.

    Only magnitudes near a guess are ranked, where the guess turns out right; else all of them.
    """
    guesses = [_guess(values, size, keep)] if size > 4 * _SAMPLE else []
    for low, high in (*guesses, (0.0, math.inf)):
        above, near = _near(values, low, high)
        rank = keep - above  # from 1, among `near`
        if 0 < rank <= len(near):
            threshold = np.partition(near, len(near) - rank)[len(near) - rank]
            surplus = int(np.count_nonzero(near >= threshold)) - rank
            return threshold, surplus if threshold else 0  # a zero is zero, kept or not
    return values[0].new_zeros(1).numpy()[0], 0  # too few of the entries are numbers


def _guess(values: Sequence[Tensor], size: int, keep: int) -> tuple[float, float]:
    """Return two magnitudes, five standard deviations around the threshold of a sample.

    Entries at equal distances stand for all: nothing is random, and a wrong guess costs only time.
    """
    stride = size // _SAMPLE | 1  # odd: widths of layers are even
    sample = np.sort(torch.cat([value.view(-1)[::stride] for value in values]).abs().numpy())
    num = len(sample)
    middle = num * (1 - keep / size)
    spread = 5 * math.sqrt(middle * keep / size) + 1
    low, high = int(middle - spread), int(middle + spread) + 1
    return float(sample[low]) if low > 0 else 0.0, float(sample[high]) if high < num else math.inf


def _near(values: Sequence[Tensor], low: float, high: float) -> tuple[int, NDArray]:
    """Return how many magnitudes are above `high`, and those from `low` to `high`."""
    above, near = 0, []
    for value in values:
        sizes = value.abs().view(-1).numpy()
        over = sizes > high
        above += int(np.count_nonzero(over))
        near.append(np.compress((sizes >= low) ^ over, sizes))  # numpy: a third of torch's time
    return above, np.concatenate(near)


DEFENSE = Entry(
    "prune", prune, paper="Stich, Cordonnier, Jaggi, NeurIPS 2018; Lin et al., ICLR 2018"
)
