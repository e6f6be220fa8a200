"""Is each defense what it claims? Every link of a chain by itself, beside an audit of the chain."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adversary.auditing.canaries import stand_in
from defenses import Defense, links
from fedsim.audit.batches import trained_of
from fedsim.audit.quiet import all_options
from fedsim.audit.user_code import flattened
from fedsim.config import Part
from fedsim.core.params import random_direction
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining

RUNS = 64  # of a link, to see its noise
SURE = 5.0  # standard errors beyond which it is no chance
RECORDS = 8  # in the batch of a defense inside training
LONG = 64.0  # times the clip: the one gradient in it
NORMS = (0.1, 1.0, 3.0, 100.0)  # of updates, in units of a link's bound
ALIKE = 0.5  # share of the noise that is the same in every run: honest noise has 1/RUNS


@dataclass(frozen=True)
class Check:
    """Whether a link is what it claims.

    Attributes:
        link: Its name and place, `gaussian (link 2 of 2)`.
        holds: Whether it is what it claims.
        measured: What it was measured to be, in a sentence.
    """

    link: str
    holds: bool
    measured: str


def check_links(parts: Sequence[Part], model: nn.Module, local: LocalTraining) -> list[Check]:
    """Run every link alone and compare it with its claims: norm, noise, and fresh noise.

    Args:
        parts: The chain, in its order.
        model: Whose parameters' shapes the updates have.
        local: The protocol.
    """
    checks = []
    for place, (part, link) in enumerate(zip(parts, links(parts), strict=True)):
        name = f"{part.name} (link {place + 1} of {len(parts)})"
        for holds, measured in _checked(link, all_options(part), model, local):
            checks.append(Check(name, holds, measured))
    return checks


def _checked(
    link: Defense, options: dict, model: nn.Module, local: LocalTraining
) -> Iterator[tuple[bool, str]]:
    if math.isfinite(link.bound(math.inf)) and not link.noise:
        yield _norm(link, model)
    if link.noise:
        yield _noise(link, model)
    if link.gradient is not None and link.promise.formal and {"clip", "noise"} <= set(options):
        yield _inside(link, float(options["clip"]), float(options["noise"]), model, local)


def _norm(link: Defense, model: nn.Module) -> tuple[bool, str]:
    bound, worst = link.bound(math.inf), 0.0
    like = {name: value.detach() for name, value in trained_of(model).items()}
    state = link.init(like)
    for place, times in enumerate(NORMS):
        coins = generator(0, "audit link", place)
        unit = random_direction(like, coins)
        update = {name: value * (times * bound) for name, value in unit.items()}
        out, state = link.apply(update, state, coins)
        worst = max(worst, float(flattened(out).norm()))
    if worst > bound * (1 + 1e-4):
        return False, f"does not clip: claims a norm of at most {bound:g}, got {worst:.3g}"
    return True, f"norm at most {worst:.3g}, claims {bound:g}"


def _noise(link: Defense, model: nn.Module) -> tuple[bool, str]:
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
    return _noise_holds(torch.stack(drawn), torch.stack(rounds), link.noise)


def _inside(
    link: Defense, clip: float, noise: float, model: nn.Module, local: LocalTraining
) -> tuple[bool, str]:
    """Let a defense inside training see one gradient that is far too long, among zeros."""
    like = {name: value.detach() for name, value in trained_of(model).items()}
    direction = random_direction(like, generator(0, "audit link"))
    double = stand_in(model, direction, LONG * clip)
    inputs, labels = torch.zeros(RECORDS, 1), torch.zeros(RECORDS, dtype=torch.int64)
    inputs[0] = -1.0  # its gradient lies along the direction
    step = LocalTraining(local.lr, RECORDS, 1, "gradient")
    assert link.gradient is not None
    runs = []
    for place in range(RUNS):
        coins = generator(0, "audit link", "hook", place)
        out = link.gradient(double, trained_of(double), inputs, labels, step, coins)
        runs.append(torch.cat([value.detach().flatten() for value in out]))
    uploads, unit = torch.stack(runs), flattened(direction)
    along = float((uploads @ unit).mean())
    claimed, std = clip / RECORDS, noise * clip / RECORDS
    if along > claimed * (1 + 1e-3) + SURE * std / math.sqrt(RUNS):
        what = "clips after averaging" if along < clip * 1.5 else "does not clip each example"
        return False, (
            f"{what}: one example of {RECORDS} moves the gradient by {along:.3g}, "
            f"claims at most clip/{RECORDS} = {claimed:.3g}"
        )
    if not noise:
        return True, f"one example of {RECORDS} moves the gradient by {along:.3g}; no noise"
    across = uploads - (uploads @ unit)[:, None] * unit
    return _noise_holds(across, across, std)


def _noise_holds(runs: Tensor, rounds: Tensor, std: float) -> tuple[bool, str]:
    """Say whether noise is as large as claimed, and new every time.

    Args:
        runs: Noise of as many clients, shape (runs, d).
        rounds: Noise of one client over rounds.
        std: What it is claimed to be on every entry.
    """
    for noise, unit in ((runs, "run"), (rounds, "round")):
        total = float(noise.square().mean())
        alike = float(noise.mean(dim=0).square().mean()) / total if total else 0.0
        if len(noise) > 1 and alike > ALIKE:
            return False, (
                f"reuses its noise: {100 * alike:.0f} % of it is the same in every {unit}"
            )
        pairs = (noise[1:] * noise[:-1]).mean(dim=1) / total if total else torch.zeros(1)
        if float(pairs.abs().max()) > max(ALIKE, SURE / math.sqrt(noise.shape[1])):
            return False, f"reuses its noise: that of one {unit} is like that of another"
    size = runs.numel()
    measured = float((runs - runs.mean(dim=0)).square().sum() / (size - runs.shape[1])) ** 0.5
    if measured < std * (1 - 1e-3 - SURE / math.sqrt(2 * size)):
        return (
            False,
            f"noise too small: claims a standard deviation of {std:.3g}, got {measured:.3g}",
        )
    return True, f"noise of standard deviation {measured:.3g}, claims {std:.3g}; new in every run"
