"""What tells clients apart, learned from rehearsed ones: variance between clients and within."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.rehearsal import defended, rehearse_all, rehearsed_size
from adversary.workspace import Workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator as derived
from fedsim.core.types import Observation, Params, Update, View

CLIENTS = 12  # rehearsed twice each
PRIOR = 4.0  # clients that a tensor's mean variance is worth


def usual_size(view: View) -> int:
    """Return the number of examples to rehearse clients of a round with: of the middle one.

    Raises:
        NotApplicable: No client told its number of examples.
    """
    counts = [observation.update.num_examples for observation in view.cohort]
    by_size = sorted(
        (observation for observation in view.cohort if observation.update.num_examples is not None),
        key=lambda observation: observation.update.num_examples or 0,
    )
    if not by_size:
        raise NotApplicable(f"num_examples: must be told by a client, got {counts[0]}")
    return rehearsed_size(by_size[len(by_size) // 2])


def discriminant(work: Workspace, size: int) -> dict[str, Float[Tensor, " n"]]:
    """Return a weight per entry of each tensor, from clients rehearsed twice with the same counts.

    With variances B between clients and W within, the log-likelihood ratio of two uploads x and y
    of one client or of two is, for B far below W, x·y·B / (B + W)² and a constant: each of the two
    is weighted by √B / (B + W).

    Args:
        work: With auxiliary inputs and labels; uploads are sent through its defense.
        size: Examples of each client.
    """
    uploads = list(_uploads(work, size))
    first, second = tuple(uploads[::2]), tuple(uploads[1::2])
    return {name: _weights(first, second, name) for name in first[0]}


def _uploads(work: Workspace, size: int) -> Iterator[Params]:
    """Yield two uploads of each rehearsed client, with examples of their own."""
    auxiliary, names = work.auxiliary, [(k, draw) for k in range(CLIENTS) for draw in range(2)]
    like = Observation(work.sent, Update(1, "shadow", {}, size), work.local)
    hooked = auxiliary.defense is not None
    streams = (derived(0, "linkage", *name) for name in names)
    clients = zip(_counts(auxiliary.num_classes, size), streams, strict=True)
    uploads = rehearse_all(like, work, clients, hooked=hooked)
    for name, upload in zip(names, uploads, strict=True):
        stream = derived(0, "linkage", *name, "defense")
        yield (defended(upload, auxiliary, stream) if hooked else upload).update.delta


def _counts(classes: int, size: int) -> Iterator[Int[Tensor, " classes"]]:
    """Yield two draws of labels for each client, from the same shares."""
    for place in range(CLIENTS):
        stream = derived(0, "linkage", place)
        share = torch.rand(classes, generator=stream).pow(4) + 1e-3
        for _ in range(2):
            labels = torch.multinomial(share, size, replacement=True, generator=stream)
            yield torch.bincount(labels, minlength=classes)


def _weights(first: tuple[Params, ...], second: tuple[Params, ...], name: str) -> Tensor:
    a, b = (torch.stack([u[name].flatten().float() for u in half]) for half in (first, second))
    within = (a - b).square().mean(dim=0) / 2
    between = ((a + b) / 2).var(dim=0) - within / 2
    within = (len(first) * within + PRIOR * within.mean()) / (len(first) + PRIOR)
    mean = between.mean().clamp(min=0)
    between = (len(first) * between + PRIOR * mean) / (len(first) + PRIOR)
    return between.clamp(min=0).sqrt() / (between.clamp(min=0) + within + 1e-30)
