"""Counts of labels: the blind counts, and how counts are graded.

The labels of a language model are the targets of all positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.labels.counts import expected_overlap, largest_remainder, largest_remainders
from adversary.steps import num_labels
from fedsim.core.form import IGNORED
from fedsim.core.ground_truth import Truth
from fedsim.core.types import Auxiliary, View

METRICS = ("asr", "skill", "exact", "precision", "recall")


def per_mille(view: View) -> View:
    """Let a client that told no number of examples have 1,000: its counts are then per mille.

    A gradient is a mean over its batch, whose size does not matter. Uploaded weights are left
    alone: without the number of local steps their scale is not known, and attacks say so.
    """
    latest = view.latest
    if latest.update.num_examples is not None or latest.local.upload == "weights":
        return view
    counted = replace(latest, update=replace(latest.update, num_examples=1000))
    return View([counted], memory=view.memory)


def remark(view: View, truth: Truth | None) -> str | None:
    """Say where counts are proportions."""
    if view.latest.update.num_examples is None:
        return "num_examples: not told, so the answer is proportions (per mille)"
    if truth is None:
        return None
    used, rows = truth.labels.shape[0], truth.indices.shape[0]
    if used != rows > 0:
        return None  # targets of texts: their number is never uploaded
    count = num_labels(view.latest)
    if count != used:
        return f"num_examples: told {count} labels but used {used}, so graded as proportions"
    return None


def blind(view: View, auxiliary: Auxiliary, generator: Generator) -> Int[Tensor, " classes"]:
    """Spread the known number of labels like the auxiliary labels, or evenly without any.

    Texts have as many targets as auxiliary texts on average.
    """
    share, each = _expected(auxiliary)
    order = torch.randperm(len(share), generator=generator)
    return largest_remainder(share, _number(view, each), order)


def blind_all(
    views: Sequence[View], auxiliary: Auxiliary, generators: Sequence[Generator]
) -> Int[Tensor, "n classes"]:
    """Return what `blind` returns for each view, to the bit."""
    share, each = _expected(auxiliary)
    order = torch.stack([torch.randperm(len(share), generator=stream) for stream in generators])
    total = torch.tensor([_number(view, each) for view in views])
    return largest_remainders(share * total.unsqueeze(1), total, order)


def _expected(auxiliary: Auxiliary) -> tuple[Float[Tensor, " classes"], float]:
    """Return the share of each class, and how many labels an example has on average."""
    classes = auxiliary.num_classes
    if auxiliary.labels is None:
        return torch.full((classes,), 1 / classes, dtype=torch.float64), 1.0
    labels = auxiliary.labels[auxiliary.labels != IGNORED]
    share = torch.bincount(labels, minlength=classes).double()
    return share / share.sum(), len(labels) / max(1, len(auxiliary.labels))


def _number(view: View, each: float) -> int:
    """Return how many labels a client used, as far as it says."""
    counted = view.latest.update.num_examples is not None
    return round(each * num_labels(view.latest)) if counted else 1000


def grade(guess: Tensor, truth: Truth) -> dict[str, float]:
    """Grade label counts, or proportions where the number of labels was not known.

    Args:
        guess: Shape (classes,), not negative. Where it does not add up to the true number of
            labels N, both are compared as proportions, so that naming more labels buys nothing.
        truth: The labels used.

    Returns:
        `asr`: attack success rate of the label papers, Σ_i min(n̂_i, n_i) / N, order ignored. It
        equals 1 − Σ_i |n̂_i − n_i| / 2N, so that error has no column of its own.
        `skill`: (asr − chance) / (1 − chance), where chance is the expected ASR of labels drawn
        evenly at random; 0 where chance is 1.
        `exact`: 1 where all counts are right.
        `precision`, `recall`: of the classes named present.
    """
    true = torch.bincount(truth.labels, minlength=len(guess))
    total = len(truth.labels)
    comparable = not guess.is_floating_point() and int(guess.sum()) == total
    share = guess.double() / guess.sum()
    asr = float(torch.minimum(share, true / total).sum())
    if comparable:  # in whole numbers, so that 1 is 1
        asr = float(torch.minimum(guess, true).sum()) / total
    chance = float(expected_overlap(total, len(guess))[true].sum()) / total
    named, present = guess > 0, true > 0
    correct = float((named & present).sum())
    return {
        "asr": asr,
        "skill": (asr - chance) / (1 - chance) if chance < 1 else 0.0,
        "exact": float(comparable and torch.equal(guess, true)),
        "precision": correct / float(named.sum()),
        "recall": correct / float(present.sum()),
    }


def grade_all(guesses: Sequence[Tensor], truths: Sequence[Truth]) -> list[dict[str, float]]:
    """Grade many guesses at once, each to the bit as `grade` does."""
    grades: list[dict[str, float] | None] = [None] * len(guesses)
    shapes = {(guess.dtype, tuple(guess.shape)) for guess in guesses}
    if len(guesses) > 1 and len(shapes) == 1 and guesses[0].dtype == torch.int64:
        named, true = torch.stack(list(guesses)), _counts(truths, len(guesses[0]))
        if true is not None:
            whole = (named.sum(dim=1) == true.sum(dim=1)).nonzero().flatten()
            for place, values in zip(
                whole.tolist(), _whole(named[whole], true[whole]), strict=True
            ):
                grades[place] = values
    return [
        grade(guess, truth) if values is None else values
        for values, guess, truth in zip(grades, guesses, truths, strict=True)
    ]


def _counts(truths: Sequence[Truth], classes: int) -> Int[Tensor, "n classes"] | None:
    """Return how often each label was used; None where a label is of no class."""
    labels = torch.cat([truth.labels for truth in truths])
    if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= classes:
        return None
    sizes = torch.tensor([truth.labels.shape[0] for truth in truths])
    rows = torch.arange(len(truths)).repeat_interleave(sizes)
    counts = torch.bincount(labels + rows * classes, minlength=len(truths) * classes)
    return counts.view(len(truths), classes)


def _whole(
    guess: Int[Tensor, "n classes"], true: Int[Tensor, "n classes"]
) -> Iterator[dict[str, float]]:
    """Yield the grades of counts that add up to the number of labels."""
    classes, totals = guess.shape[1], true.sum(dim=1)
    overlaps = torch.empty(len(guess), dtype=torch.float64)
    for total in totals.unique().tolist():
        same = totals == total
        overlaps[same] = expected_overlap(total, classes)[true[same]].sum(dim=1)
    named, present = guess > 0, true > 0
    correct = (named & present).sum(dim=1).double()
    columns = (
        torch.minimum(guess, true).sum(dim=1).double() / totals,
        overlaps / totals,
        (guess == true).all(dim=1).double(),
        correct / named.sum(dim=1),
        correct / present.sum(dim=1),
    )
    for asr, chance, *rest in torch.stack(columns, dim=1).tolist():
        skill = (asr - chance) / (1 - chance) if chance < 1 else 0.0
        yield dict(zip(METRICS, (asr, skill, *rest), strict=True))
