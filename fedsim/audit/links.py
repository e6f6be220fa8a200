"""Is each defense what it claims? Every link of a chain by itself, beside an audit of the chain."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import scipy
import torch
from torch import Tensor, nn

from adversary.auditing.canaries import alternate, stand_in
from defenses import Defense, links
from defenses.registry import all_options
from fedsim.audit.batches import trained_of
from fedsim.audit.noise import coarse, doubt, size_of
from fedsim.audit.sampling import SAMPLES, claims_poisson, sampling_doubt
from fedsim.audit.user_code import flattened
from fedsim.config import Part
from fedsim.core.params import random_direction
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining

RUNS = 64  # of a link, to see its noise
ZEROS = 4  # runs on an update of zeros
ALONE = 16  # of a defense inside training, with one record of the batch
LEVEL = 1e-3  # chance that an honest chain has a link that is called broken
RECORDS = 8  # in the batch of a defense inside training
LONG = 64.0  # times the clip: the one gradient in it
NORMS = (0.1, 1.0, 3.0, 100.0)  # of updates, in units of a link's bound


@dataclass(frozen=True)
class Check:
    """Whether a link is what it claims.

    Attributes:
        link: Its name and place, `gaussian (link 2 of 2)`.
        holds: Whether it is what it claims, at the level of the audit.
        measured: What it was measured to be, in a sentence.
    """

    link: str
    holds: bool
    measured: str


@dataclass(frozen=True)
class _Looked:
    """What was measured of a link, before the level is known.

    Attributes:
        p: The chance of it, or worse, if the link is what it claims.
        fine: What to say if it is.
        wrong: What to say if it is not.
    """

    p: float
    fine: str
    wrong: str


def check_links(
    parts: Sequence[Part],
    model: nn.Module,
    local: LocalTraining,
    num_examples: int,
    level: float = LEVEL,
) -> list[Check]:
    """Run every link alone and compare it with its claims: norm, noise, fresh noise, and sampling.

    Args:
        parts: The chain, in its order.
        model: Whose parameters' shapes the updates have.
        local: The protocol.
        num_examples: Of the client, of which batches are drawn.
        level: Chance that a chain of honest links has one that is called broken.
    """
    looked = []
    for place, (part, link) in enumerate(zip(parts, links(parts), strict=True)):
        name = f"{part.name} (link {place + 1} of {len(parts)})"
        looked += [(name, each) for each in _looked(link, all_options(part), model, local)]
        if claims_poisson(link):
            doubt = sampling_doubt(link, local, num_examples)
            looked.append((name, _Looked(doubt.p, SAMPLES, doubt.reason)))
    level /= max(1, len(looked))
    return [
        Check(name, each.p > level, each.fine if each.p > level else each.wrong)
        for name, each in looked
    ]


def _looked(
    link: Defense, options: dict, model: nn.Module, local: LocalTraining
) -> Iterator[_Looked]:
    if math.isfinite(link.bound(math.inf)) and not link.noise:
        yield _norm(link, model)
    if link.noise:
        yield _noise(link, model)
    if link.gradient is not None and link.promise.formal and {"clip", "noise"} <= set(options):
        yield from _inside(link, float(options["clip"]), float(options["noise"]), model, local)


def _norm(link: Defense, model: nn.Module) -> _Looked:
    bound, worst = link.bound(math.inf), 0.0
    like = {name: value.detach() for name, value in trained_of(model).items()}
    state = link.init(like)
    for place, times in enumerate(NORMS):
        coins = generator(0, "audit link", place)
        unit = random_direction(like, coins)
        update = {name: value * (times * bound) for name, value in unit.items()}
        out, state = link.apply(update, state, coins)
        worst = max(worst, float(flattened(out).norm()))
    return _Looked(
        0.0 if worst > bound * (1 + 1e-4) else 1.0,
        f"norm at most {worst:.3g}, claims {bound:g}",
        f"does not clip: claims a norm of at most {bound:g}, got {worst:.3g}",
    )


def _noise(link: Defense, model: nn.Module) -> _Looked:
    """Run a link on one update, as new clients and as one client over rounds."""
    like = {name: value.detach() for name, value in trained_of(model).items()}
    unit = random_direction(like, generator(0, "audit link"))
    small = min(1.0, link.bound(math.inf)) / 2
    update = {name: value * small for name, value in unit.items()}
    state, drawn, rounds = link.init(like), [], []
    for place in range(RUNS):
        out, _ = link.apply(update, link.init(like), generator(0, "audit link", "client", place))
        drawn.append(flattened(out) - flattened(update))
        out, state = link.apply(update, state, generator(0, "audit link", "round", place))
        rounds.append(flattened(out) - flattened(update))
    streams = {"run": torch.stack(drawn), "round": torch.stack(rounds)}
    size, zeros = _noise_holds(streams, link.noise, like), _on_zeros(link, like)
    few, unmoved = coarse(zeros[zeros != 0]), _noise_holds({"run": zeros}, link.noise, like)
    others = [(few.p, few.reason), (unmoved.p, f"on an update of zeros, {unmoved.wrong}")]
    p, wrong = min([(size.p, size.wrong), *others], key=lambda each: each[0])
    return replace(size, p=min(1.0, 3 * p), wrong=wrong)


def _on_zeros(link: Defense, like: Mapping[str, Tensor]) -> Tensor:
    """Return the noise on an update of zeros, of a few runs: every digit of it is there."""
    nothing = {name: torch.zeros_like(value) for name, value in like.items()}
    rows = [
        flattened(link.apply(nothing, link.init(like), generator(0, "audit link", "zeros", n))[0])
        for n in range(ZEROS)
    ]
    return torch.stack(rows)


def _inside(
    link: Defense, clip: float, noise: float, model: nn.Module, local: LocalTraining
) -> Iterator[_Looked]:
    """Let a defense inside training see one gradient that is far too long, in a batch and alone."""
    like = {name: value.detach() for name, value in trained_of(model).items()}
    direction = random_direction(like, generator(0, "audit link"))
    double = stand_in(model, direction, LONG * clip)
    inputs, labels = torch.zeros(RECORDS, 1), torch.zeros(RECORDS, dtype=torch.int64)
    inputs[0] = -1.0  # its gradient lies along the direction
    step = LocalTraining(local.lr, RECORDS, 1, "gradient")
    hook, unit, std = link.gradient, flattened(direction), noise * clip / RECORDS
    assert hook is not None

    def runs(count: int, records: Tensor, name: str) -> Tensor:
        rows = []
        for place in range(count):
            coins = generator(0, "audit link", name, place)
            args = (records, labels[: len(records)], step, coins)
            out = hook(double, trained_of(double), *args)
            rows.append(torch.cat([value.detach().flatten() for value in out]))
        return torch.stack(rows)

    uploads = runs(RUNS, inputs, "hook")
    among = _moved(uploads @ unit, clip, std)
    wrong = "clips after averaging" if float((uploads @ unit).mean()) < clip * 1.5 else ""
    yield _Looked(*among[:2], f"{wrong or 'does not clip each example'}: {among[2]}")
    alone = _moved(runs(ALONE, inputs[:1], "alone") @ unit, clip, std)
    if among[0] > 0:
        yield _Looked(*alone[:2], f"divides by the number of examples that came: {alone[2]}")
        crowd = alternate(RECORDS)[:, None]
        both = [runs(ALONE, records, "crowd") @ unit for records in (crowd, crowd[1:])]
        first = _moved(both[0] - both[1], clip, std * math.sqrt(2))
        yield _Looked(*first[:2], f"clips sums of several examples: {first[2]}")
    if noise:
        record = (uploads @ unit).mean() * unit  # the same in every run
        yield _noise_holds({"run": uploads - record}, std, like)


def _moved(along: Tensor, clip: float, std: float) -> tuple[float, str, str]:
    """Return how likely a record moves a gradient so far, and both sentences about it."""
    most, mean = clip / RECORDS, float(along.mean())
    error = max(std / math.sqrt(len(along)), 1e-12)
    measured = f"one example of {RECORDS} moves the gradient by {mean:.3g}"
    p = float(scipy.special.ndtr((most * (1 + 1e-3) - mean) / error))
    return p, measured, f"{measured}, claims at most clip/{RECORDS} = {most:.3g}"


def _noise_holds(streams: Mapping[str, Tensor], std: float, like: Mapping[str, Tensor]) -> _Looked:
    """Say whether noise is as large as claimed on every tensor, and new every time.

    Args:
        streams: What a run is called → noise of as many runs, shape (runs, d).
        std: What it is claimed to be on every entry.
        like: Its tensors, by name.
    """
    sizes = {name: value.numel() for name, value in like.items()}
    worst, measured = doubt(streams, std, sizes), size_of(next(iter(streams.values())))
    fine = f"noise of standard deviation {measured:.3g}, claims {std:.3g}; new in every run"
    return _Looked(worst.p, fine, worst.reason)
