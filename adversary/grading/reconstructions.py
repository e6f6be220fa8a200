"""Reconstructed examples: the blind picture, and how a set of guesses is graded.

Every value is put on the scale of the data first: 0 is the smallest and 1 the largest value that an
input has. Images have one scale, [0, 1]; a feature of a table has its own, from the training set,
and one that never changes there is left out.

What is guessed is a set: in any order, and of any size. Of more guesses than the client has
distinct examples the first count; for each that lacks, the blind picture is taken. Guesses go to
examples by the Hungarian method on the mean squared error. That assignment knows the examples:
where there are hundreds of them, guesses that merely differ from each other beat the blind picture
by half a decibel (13.1 against 12.5 dB with 400 images of CIFAR-10). `match_rate` cannot be had
that way. The rate of a guess that knows nothing is the share of the pool, which stands beside it.

Records whose columns the data set declares are graded cell by cell too (`records`).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.grading import records
from adversary.grading.identification import cells, identified
from adversary.grading.images import psnr, ssim
from adversary.grading.orientations import feature_similarity
from adversary.grading.perceptual import lpips_similarity, network
from fedsim.core.ground_truth import Lineup, Truth
from fedsim.core.types import Auxiliary, Estimate, View

METRICS = ("psnr", "best_psnr", "ssim", "match_rate")
OF_IMAGES = ("feature_similarity", "lpips_similarity")
BLOCK = 1024  # examples at a time


def blind(view: View, auxiliary: Auxiliary, generator: Generator) -> Float[Tensor, "n *shape"]:  # noqa: ARG001
    """Answer with the blank picture, once for every example that the client told of."""
    shape = _shape(auxiliary)
    picture = blank(auxiliary.inputs, shape)
    count = view.latest.update.num_examples
    return picture.expand(1 if count is None else count, *shape)


def blank(inputs: Tensor | None, shape: tuple[int, ...]) -> Float[Tensor, "*shape"]:
    """Return the mean of auxiliary inputs, which has the least squared error without an update.

    Without any, mid-grey where `shape` is that of an image, and zeros where it is not: tables are
    standardised.
    """
    if inputs is not None and len(inputs):
        return inputs.double().mean(dim=0)
    return torch.full(shape, 0.5 if is_image(shape) else 0.0, dtype=torch.float64)


def bounds(examples: Float[Tensor, "n *shape"]) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of each input, shape (*shape), float64.

    Those of images are 0 and 1, or the extremes over all pixels where these leave [0, 1].
    """
    shape = tuple(examples.shape[1:])
    if not is_image(shape):
        return examples.amin(dim=0).double(), examples.amax(dim=0).double()
    low, high = (float(value) for value in examples.aminmax())
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    return torch.full(shape, low).double(), torch.full(shape, high).double()


def is_image(shape: Sequence[int]) -> bool:
    """Return whether examples of a shape are images: (channels, height, width)."""
    return len(shape) == 3 and all(shape)


def checked(guess: object, auxiliary: Auxiliary) -> Tensor:
    """Return an attack's answer as a tensor that can be graded and stored.

    Raises:
        ValueError: It is no set of finite inputs of the model.
    """
    shape = _shape(auxiliary)
    if isinstance(guess, Estimate):
        return checked(guess.values, auxiliary)
    if not isinstance(guess, Tensor) or not guess.is_floating_point():
        kind = guess.dtype if isinstance(guess, Tensor) else type(guess).__name__
        raise ValueError(f"guess: must be a tensor of floats, got {kind}")
    if tuple(guess.shape[1:]) != shape or guess.ndim != len(shape) + 1:
        rule = f"(n, {', '.join(map(str, shape))})"
        raise ValueError(f"guess: must have the shape {rule}, got {tuple(guess.shape)}")
    if bad := int((~guess.isfinite()).sum()):
        raise ValueError(f"guess: must be finite, got {bad} of {guess.numel()} values that are not")
    return guess.detach().cpu()


def paired(guess: Float[Tensor, "k *shape"], truth: Truth) -> Float[Tensor, "n *shape"]:
    """Return the guess that stands for each of the client's examples, on the scale of the data.

    Args:
        guess: Any number of them.
        truth: With inputs and lineup.

    Returns:
        In the order of `truth.inputs`, clipped to [0, 1], float64.
    """
    inputs, lineup = _inputs_and_lineup(truth)
    return _completed(guess, len(inputs), lineup)[assigned(guess, truth)]


def assigned(guess: Float[Tensor, "k *shape"], truth: Truth) -> Int[Tensor, " n"]:
    """Return the place of the guess that stands for each of the client's examples.

    Places behind the last guess are those of the blind picture.

    Args:
        guess: Any number of them.
        truth: With inputs and lineup.
    """
    from scipy.optimize import linear_sum_assignment

    inputs, lineup = _inputs_and_lineup(truth)
    guesses = _completed(guess, len(inputs), lineup)
    ours, answered = (_varying(values, lineup) for values in (scaled(inputs, lineup), guesses))
    # Differences themselves: products would drown those of guesses that are nearly exact.
    mode = "donot_use_mm_for_euclid_dist"
    cost = torch.cdist(ours, answered, compute_mode=mode).square()
    return torch.from_numpy(linear_sum_assignment(cost.numpy())[1])


def scaled(values: Tensor, lineup: Lineup) -> Float[Tensor, "n *shape"]:
    """Return inputs on the scale of the data; one that never changes there is 0."""
    span = lineup.high - lineup.low
    return (values.double() - lineup.low).where(span > 0, 0.0) / span.where(span > 0, 1.0)


def decibels(guesses: Tensor, truth: Truth) -> Float[Tensor, " n"]:
    """Return the PSNR of each example's reconstruction.

    Args:
        guesses: As `paired` returns them, or one for all examples.
        truth: With inputs and lineup.
    """
    inputs, lineup = _inputs_and_lineup(truth)
    exact = scaled(inputs, lineup)
    return psnr(_varying(guesses.expand_as(exact), lineup), _varying(exact, lineup), 1.0)


def grade(guess: Float[Tensor, "k *shape"], truth: Truth) -> dict[str, float]:
    """Grade reconstructed examples.

    Args:
        guess: In the data's own range, any number in any order.
        truth: With inputs and lineup.

    Returns:
        `psnr`: mean over the client's distinct examples, in dB.
        `best_psnr`: of the one that came out best: the worst that happened to anybody.
        `ssim`: mean over the examples; NaN where they are no images.
        `match_rate`: share of the examples that are identified
        (`adversary.grading.identification`): picked from a pool of them and of others of the data
        set. That of a guess which knows nothing is the share of the pool that is theirs, about 1
        in 100 where there are others enough.
        All are NaN without inputs. Of records of declared columns also `records.METRICS`.
    """
    return pool([guess], [truth])


def pool(guesses: Sequence[Tensor], truths: Sequence[Truth]) -> dict[str, float]:
    """Grade the reconstructions of a round's clients together: the means are over all examples."""
    pairs = zip(guesses, truths, strict=True)
    each = [_examples(g, t) for g, t in pairs if t.inputs is not None and len(t.inputs)]
    if not each:
        return dict.fromkeys(METRICS, math.nan)
    of = {name: torch.cat([values[name] for values in each]) for name in each[0]}
    return {
        "psnr": float(of["psnr"].mean()),
        "best_psnr": float(of["psnr"].max()),
        "ssim": float(of["ssim"].mean()),
        "match_rate": float(of["match_rate"].nanmean()),
        **{name: float(of[name].mean()) for name in OF_IMAGES if name in of},
        **records.pool(guesses, truths),
    }


def pool_blind(guesses: Sequence[Tensor], truths: Sequence[Truth]) -> dict[str, float]:
    """Grade blind guesses: as `pool`; the match rate is chance, and of records see `records.blind`.

    Chance is the share of the pool that is the client's.
    """
    values = {**pool(guesses, truths), **records.blind(guesses, truths)}
    shares = [chance(truth) for truth in truths if truth.inputs is not None for _ in truth.inputs]
    if shares:
        values["match_rate"] = float(torch.tensor(shares, dtype=torch.float64).nanmean())
    return values


def chance(truth: Truth) -> float:
    """Return how often a guess that knows nothing picks a client's example; NaN without others."""
    inputs, lineup = _inputs_and_lineup(truth)
    others = len(lineup.others)
    return len(inputs) / (len(inputs) + others) if others else math.nan


def ceiling(truths: Sequence[Truth]) -> dict[str, float]:
    """Return the most that an attack can reach: of PSNR there is none."""
    most = {"ssim": 1.0, "match_rate": 1.0, **records.ceiling(truths)}
    return most | dict.fromkeys(OF_IMAGES, 1.0)


def _examples(guess: Tensor, truth: Truth) -> dict[str, Tensor]:
    """Return each example's values by metric; computed once a round."""
    inputs, lineup = _inputs_and_lineup(truth)
    key = guess, inputs, lineup  # the objects themselves
    return lineup.memory.get(_examples, key, lambda: _compared(guess, truth), keep=64)


def _compared(guess: Tensor, truth: Truth) -> dict[str, Tensor]:
    inputs, lineup = _inputs_and_lineup(truth)
    matched = paired(guess, truth)
    ratios = decibels(matched, truth)
    pool = lineup.memory.get(_pool, (inputs, lineup), lambda: _pool(truth), keep=2)
    values = {
        "psnr": ratios,
        "ssim": torch.full_like(ratios, math.nan),
        "match_rate": identified(cells(matched, _blind_picture(lineup)), pool),
    }
    if is_image(inputs.shape[1:]):
        exact = scaled(inputs, lineup)
        values["ssim"] = ssim(matched, exact)
        values["feature_similarity"] = feature_similarity(matched, exact)
        if lineup.lpips:
            net = lineup.memory.run.get(network, None, network, keep=1)
            values["lpips_similarity"] = lpips_similarity(matched, exact, net)
    return values


def _pool(truth: Truth) -> Tensor:
    """Return what the client's examples and then the others are told apart by."""
    inputs, lineup = _inputs_and_lineup(truth)
    others = (lineup.examples[rows] for rows in lineup.others.split(BLOCK))
    blind = _blind_picture(lineup)
    return torch.cat([cells(scaled(block, lineup), blind) for block in (inputs, *others)])


def _blind_picture(lineup: Lineup) -> Tensor:
    return scaled(lineup.blank, lineup)


def _completed(guess: Tensor, count: int, lineup: Lineup) -> Tensor:
    """Return exactly `count` guesses, on the scale of the data."""
    lacking = max(0, count - len(guess))
    blanks = lineup.blank.double().expand(lacking, *lineup.blank.shape)
    return scaled(torch.cat([guess[:count].double(), blanks]), lineup).clamp(0, 1)


def _varying(values: Tensor, lineup: Lineup) -> Tensor:
    """Return each example as a row of the features that change."""
    return values.flatten(1)[:, (lineup.high > lineup.low).flatten()]


def _inputs_and_lineup(truth: Truth) -> tuple[Tensor, Lineup]:
    if truth.inputs is None or truth.lineup is None:
        raise ValueError("truth: must hold the inputs and a lineup to grade reconstructions")
    return truth.inputs, truth.lineup


def _shape(auxiliary: Auxiliary) -> tuple[int, ...]:
    """Return the shape of one example."""
    if auxiliary.input_shape is not None:
        return tuple(auxiliary.input_shape)
    if auxiliary.inputs is None:
        raise ValueError("auxiliary: must tell the shape of an input, got none")
    return tuple(auxiliary.inputs.shape[1:])
