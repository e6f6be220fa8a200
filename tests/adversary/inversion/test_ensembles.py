"""Relaxed records and their pool, by hand and against the slow loop."""

import math

import pytest
import torch
from torch import Tensor

from adversary.inversion.ensembles import Relaxation, pooled
from fedsim.core.rng import generator
from fedsim.core.schema import Column, schema_of

COLUMNS = (
    Column("age", (2,), mean=40.0, deviation=10.0, whole=True),
    Column("colour", (3, 4, 5), ("red", "green", "blue"), torch.eye(3)),
    Column("ill", (0,), ("no", "yes"), torch.tensor([[0.0], [1.0]])),
    Column("pressure", (1,), mean=1.5, deviation=0.5),
)
LOW, HIGH = torch.tensor([0.0, -2, -3, 0, 0, 0]), torch.tensor([1.0, 2, 3, 1, 1, 1])
TOLERANCES = torch.tensor([0.0, 0.319, 0.319, 0.0]).double()  # in the order of the features


def relaxation(columns=COLUMNS, low=LOW, high=HIGH) -> Relaxation:
    schema = schema_of(columns, len(low))
    assert schema is not None
    return Relaxation(schema, low, high)


def slowly(of: Relaxation, logits: Tensor) -> Tensor:
    """Return what the logits of one record stand for, column by column."""
    record, first = torch.zeros(of.schema.size), 0
    for column in of.schema.columns:
        size = max(1, len(column.values))
        part, first = logits[first : first + size], first + size
        if column.codes is None:
            low, high = of.low[column.features[0]], of.high[column.features[0]]
            record[column.features[0]] = low + (high - low) * part[0].sigmoid()
        else:
            record[list(column.features)] = part.softmax(dim=0) @ column.codes
    return record


@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS[:0:-1], COLUMNS[1:3], COLUMNS[:1]])
def test_relaxed_records_are_those_of_the_slow_loop(columns):
    features = sorted(feature for column in columns for feature in column.features)
    moved = [
        Column(c.name, tuple(map(features.index, c.features)), c.values, c.codes) for c in columns
    ]
    of = relaxation(tuple(moved), LOW[features], HIGH[features])
    form = of.form(3, (of.schema.size,), torch.float32)
    points = 3 * form.start(2, generator(0))
    assert points.shape == (2, form.size)
    records = form.images(points)
    expected = [slowly(of, v) for row in points for v in row.view(3, -1)]
    assert torch.allclose(records.flatten(0, 1), torch.stack(expected), atol=1e-6)


def test_the_range_is_kept_at_any_logits():
    of = relaxation()
    form = of.form(1, (6,), torch.float32)
    ends = torch.tensor([[-1e9], [1e9], [0.0]]).expand(3, form.size)
    records = form.images(ends)[:, 0]
    assert bool(((records >= LOW) & (records <= HIGH)).all())
    assert records[:2, 1].tolist() == [-2.0, 2.0]


def test_members_are_pooled_cell_by_cell_in_one_order():
    of = relaxation()
    first = torch.tensor([1.0, 0.5, 0.30, 0, 1, 0])
    second = torch.tensor([0.0, -1.0, -2.0, 1, 0, 0])
    moved, other = first.clone(), first.clone()
    moved[2], other[3:] = 0.33, torch.tensor([0.1, 0.2, 0.7])
    members = torch.stack(
        [
            torch.stack([first, second]),
            torch.stack([second, moved]),
            torch.stack([other, second]),
        ]
    )
    it = pooled(members, torch.tensor([1.0, 2.0, 4.0]), of, TOLERANCES, sharpness=0, by="entropy")
    assert torch.allclose(it.records, torch.stack([first, second]).double(), atol=1e-6)
    # age of the first: 0.30, 0.33, 0.30 in columns of deviation 1; its colour: a third of a doubt
    assert float(it.uncertainty[0, 2]) == pytest.approx(0.03 * math.sqrt(2) / 3, rel=1e-4)
    shares = torch.tensor([0.1 / 3, 2.2 / 3, 0.7 / 3])
    entropy = float(torch.special.entr(shares).sum()) / math.log(3)
    assert it.uncertainty[0, 3:].tolist() == pytest.approx([entropy] * 3, rel=1e-4)
    assert it.uncertainty[0, :2].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert float(it.uncertainty[1].max()) == pytest.approx(0.0, abs=1e-6)


def test_even_probabilities_of_any_code_have_an_uncertainty_of_one():
    of = relaxation()
    even = torch.tensor([0.5, 0.0, 0.0, 1 / 3, 1 / 3, 1 / 3])
    it = pooled(even.expand(4, 1, 6), torch.ones(4), of, TOLERANCES, sharpness=1, by="entropy")
    assert it.uncertainty[0, [0, 3]].tolist() == pytest.approx([1.0, 1.0], rel=1e-5)
    far = even.repeat(2, 1, 1)
    far[1, 0, 2] = 3.0
    it = pooled(far, torch.ones(2), of, TOLERANCES, sharpness=1, by="entropy")
    assert float(it.uncertainty[0, 2]) == 1.0  # at most


def test_members_of_a_small_loss_have_more_votes_and_doubt_is_the_share_that_disagrees():
    of = relaxation()
    members = torch.tensor([[0.0, 0, 1, 1, 0, 0], [1, 1, 2, 0, 1, 0], [1, 1, 2, 0, 1, 0]])
    losses = torch.tensor([1.0, 3.0, 3.0])
    for sharpness, answer, agreeing in ((0, 1, 2 / 3), (1, 0, 1 / 3), (3, 0, 1 / 3)):
        it = pooled(members.unsqueeze(1), losses, of, TOLERANCES, sharpness=sharpness)
        assert torch.allclose(it.records[0], members[answer].double(), atol=1e-6)
        assert it.uncertainty[0].tolist() == pytest.approx([1 - agreeing] * 6, abs=1e-6)


def test_one_member_of_a_column_of_one_value_is_sure():
    of = relaxation((Column("only", (0,), ("it",), torch.ones(1, 1)),), LOW[:1], HIGH[:1])
    for by in ("agreement", "entropy"):
        it = pooled(torch.ones(1, 2, 1), torch.zeros(1), of, torch.zeros(1), sharpness=5, by=by)
        assert (it.records.tolist(), it.uncertainty.tolist()) == ([[1.0]] * 2, [[0.0]] * 2)
