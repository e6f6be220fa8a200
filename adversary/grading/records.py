"""Reconstructed records of a table, cell by cell; a reconstruction's answer in valid values.

Every attack's answer is rounded to a record that the table can hold: of each category the value
with the nearest code (of one-hot features the largest), of each number the nearest one in the range
of the training set, whole where all are. Answers then go to the client's records one to one, so
that most cells agree: a category exactly, a number within 0.319 standard deviations (M. Vero, M.
Balunović, D. I. Dimitrov, M. Vechev, "TabLeak: Tabular Data Leakage in Federated Learning", ICML
2023, section 5). The mean is that near to a quarter of a normal column.

Many cells of a record can be had without any update: from the mode of each column, which is the
blind record, from drawn auxiliary records, some of which fit a large batch, and from the auxiliary
record that happens to be alike. Blind is the better of the first two, metric by metric;
`beyond_auxiliary` is what the third does not give either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adversary.members.scores import within_classes
from fedsim.core.ground_truth import Lineup, Records, Truth
from fedsim.core.rng import generator
from fedsim.core.schema import agree, same

METRICS = (
    "cell_accuracy",
    "category_accuracy",
    "number_accuracy",
    "record_match",
    "beyond_auxiliary",
)
CONFIDENCE = "confidence_auroc"
DRAWS = 3  # of auxiliary records, of which the mean counts


@dataclass(frozen=True, eq=False)
class Compared:
    """A client's records beside the answers that stand for them.

    Attributes:
        answers: The rounded answer for each record, in units of the inputs.
        places: Which of the attack's answers it is; those behind the last are the blind record's.
        right: Which cells agree.
        nearest: The most cells in which an auxiliary record agrees with it; NaN without any.
    """

    answers: Float[Tensor, "n features"]
    places: Tensor
    right: Bool[Tensor, "n columns"]
    nearest: Float[Tensor, " n"]


def pool(guesses: Sequence[Tensor], truths: Sequence[Truth]) -> dict[str, float]:
    """Grade the records of some clients together: the means are over all of them.

    Returns:
        `cell_accuracy`: share of cells that agree; `category_accuracy` and `number_accuracy` of
        these columns alone.
        `record_match`: share of records of which every cell agrees.
        `beyond_auxiliary`: share of records of which more cells agree than in any auxiliary record.
        Empty where no columns are declared.
    """
    pairs = [(g, t, records_of(t)) for g, t in zip(guesses, truths, strict=True)]
    each = [(compared(guess, truth), of) for guess, truth, of in pairs if of is not None]
    if not each:
        return {}
    numbers = each[0][1].schema.numbers
    right = torch.cat([it.right for it, _ in each]).double()
    nearest = torch.cat([it.nearest for it, _ in each])
    more = (right.sum(dim=1) > nearest).double()
    values = (
        right.mean(),
        right[:, ~numbers].mean(),
        right[:, numbers].mean(),
        right.prod(dim=1).mean(),
        more.mean() if not bool(nearest.isnan().any()) else torch.tensor(math.nan),
    )
    return dict(zip(METRICS, map(float, values), strict=True))


def blind(guesses: Sequence[Tensor], truths: Sequence[Truth]) -> dict[str, float]:
    """Return what needs no update: the blind records, or auxiliary ones drawn for each client.

    Args:
        guesses: The blind records of some clients.
        truths: Of the clients.
    """
    values = pool(guesses, truths)
    if not values or any(of is None or not len(of.auxiliary) for of in map(records_of, truths)):
        return values
    draws = [pool([_drawn(truth, draw) for truth in truths], truths) for draw in range(DRAWS)]
    return {
        name: max(value, sum(draw[name] for draw in draws) / DRAWS)
        for name, value in values.items()
    }


def _drawn(truth: Truth, draw: int) -> Tensor:
    """Return auxiliary records, one for each of a client's."""
    assert truth.inputs is not None
    assert truth.lineup is not None
    assert truth.lineup.records is not None
    lineup, rows, count = truth.lineup, truth.lineup.records.auxiliary, len(truth.inputs)
    stream = generator(0, "drawn records", draw, count)
    compute = lambda: lineup.examples[rows[torch.randperm(len(rows), generator=stream)[:count]]]
    return lineup.memory.get(_drawn, (truth.inputs, lineup, draw), compute, keep=64)


def ceiling(truths: Sequence[Truth]) -> dict[str, float]:
    """Return the most that an attack can reach: nothing is beyond a record that is auxiliary."""
    if not any(records_of(truth) is not None for truth in truths):
        return {}
    return dict.fromkeys(METRICS[:-1], 1.0)


def records_of(truth: Truth) -> Records | None:
    """Return what a client's records are compared by; None where there are no columns or truth."""
    if truth.lineup is None or truth.inputs is None or not len(truth.inputs):
        return None
    return truth.lineup.records


def compared(guess: Float[Tensor, "k *shape"], truth: Truth) -> Compared:
    """Return a client's records beside the answers that stand for them; computed once a round.

    Args:
        guess: Any number of answers, in any order.
        truth: With inputs, and a lineup with records.
    """
    assert truth.inputs is not None
    assert truth.lineup is not None
    key = guess, truth.inputs, truth.lineup  # the objects themselves
    return truth.lineup.memory.get(compared, key, lambda: _compared(guess, truth), keep=64)


def confidence(
    guess: Float[Tensor, "k *shape"], uncertainty: Float[Tensor, "k *shape"], truth: Truth
) -> tuple[Float[Tensor, " cells"], Bool[Tensor, " cells"]]:
    """Return the confidence of each answered cell, and whether it is right.

    Args:
        guess: Any number of answers.
        uncertainty: Of each number of them; those of a column are alike.
        truth: With inputs, and a lineup with records.
    """
    records, it = records_of(truth), compared(guess, truth)
    assert records is not None
    answered = it.places < len(uncertainty)
    firsts = [column.features[0] for column in records.schema.columns]
    of = uncertainty.flatten(1).double()[it.places[answered]][:, firsts]
    return 1 - of.flatten(), it.right[answered].flatten()


def grade_confidence(
    guess: Tensor, uncertainty: Tensor, truth: Truth
) -> dict[str, tuple[float, float]]:
    """Return `confidence_auroc`: how often a right cell is surer than a wrong one; and its chance.

    NaN where all cells are right, or none.
    """
    if records_of(truth) is None:
        return {}
    sure, right = confidence(guess, uncertainty, truth)
    one_class = torch.zeros(len(right), dtype=torch.long)
    auroc = within_classes(sure, right, one_class)["auroc"] if len(right) else math.nan
    return {CONFIDENCE: (auroc, 0.5)}


def _compared(guess: Tensor, truth: Truth) -> Compared:
    from scipy.optimize import linear_sum_assignment

    inputs, lineup = truth.inputs, truth.lineup
    assert inputs is not None
    assert lineup is not None
    records = lineup.records
    assert records is not None
    schema, tolerances = records.schema, records.tolerances
    count = len(inputs)
    blanks = lineup.blank.double().expand(max(0, count - len(guess)), *lineup.blank.shape)
    answers = torch.cat([guess[:count].double(), blanks])
    answers = schema.rounded(answers, lineup.low, lineup.high)
    true, cells = schema.cells(inputs), schema.cells(answers)
    places = linear_sum_assignment(-same(true, cells, tolerances).numpy())[1]
    places = torch.from_numpy(places)
    right = agree(true, cells[places], tolerances)
    nearest = lineup.memory.get(_nearest, (inputs, lineup), lambda: _nearest(true, lineup, records))
    return Compared(answers[places].flatten(1), places, right, nearest)


def _nearest(true: Tensor, lineup: Lineup, records: Records) -> Tensor:
    """Return the most cells in which an auxiliary record agrees with each of a client's records."""
    if not len(records.auxiliary):
        return torch.full((len(true),), math.nan, dtype=torch.float64)
    compute = lambda: records.schema.cells(lineup.examples[records.auxiliary])
    others = lineup.memory.run.get(_nearest, records, compute, keep=1)
    return same(true, others, records.tolerances).amax(dim=1)
