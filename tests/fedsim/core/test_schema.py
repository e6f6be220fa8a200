"""Records cell by cell, by hand."""

import pytest
import torch

from fedsim.core.schema import Column, Schema, agree, same, schema_of

COLUMNS = (
    Column("colour", (1, 2, 3), ("red", "green", "blue"), torch.eye(3)),
    Column("age", (0,), mean=40.0, deviation=10.0, whole=True),
    Column("ill", (4,), ("no", "yes"), torch.tensor([[0.0], [1.0]])),
    Column("pressure", (5,), mean=1.5, deviation=0.5),
)
SCHEMA = schema_of(COLUMNS, 6)
LOW, HIGH = torch.full((6,), -2.0), torch.full((6,), 2.0)
GUESS = torch.tensor([[0.26, 5.0, 7.0, -1.0, 0.4, 3.0], [-3.0, 0.1, 0.0, 0.05, 0.6, 0.1]])
EXACT = torch.tensor([[0.3, 0, 1, 0, 0, 2.0], [-2.0, 1, 0, 0, 1, 0.1]])


@pytest.fixture
def schema() -> Schema:
    assert SCHEMA is not None
    return SCHEMA


def test_columns_stand_in_the_order_of_their_features(schema):
    assert [column.name for column in schema.columns] == ["age", "colour", "ill", "pressure"]
    assert schema.numbers.tolist() == [True, False, False, True]
    assert schema.size == 6


@pytest.mark.parametrize(
    ("columns", "size"),
    [((), 0), (COLUMNS, 7), (COLUMNS[1:], 6), ((*COLUMNS, Column("twice", (0,))), 6)],
)
def test_without_a_column_for_each_input_there_is_no_schema(columns, size):
    assert schema_of(columns, size) is None


def test_answers_are_rounded_to_what_the_table_can_hold(schema):
    rounded = schema.rounded(GUESS, LOW, HIGH)
    assert torch.allclose(rounded, EXACT.double())
    assert torch.allclose(schema.rounded(rounded, LOW, HIGH), rounded)


def test_cells_in_words(schema):
    texts = [column.texts(EXACT) for column in schema.columns]
    assert texts == [["43", "20"], ["green", "red"], ["no", "yes"], ["2.5", "1.55"]]


def test_cells_agree_exactly_or_within_the_tolerance(schema):
    records = torch.stack([EXACT[0], EXACT[0], EXACT[1]])
    records[1, 0] += 0.3
    tolerances = torch.tensor([0.319, 0.0, 0.0, 0.1]).double()
    cells = schema.cells(records)
    expected = [[4.0, 4.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 4.0]]
    assert same(cells, cells, tolerances).tolist() == expected
    tolerances[0] = 0.2
    assert agree(cells[0], cells[1], tolerances).tolist() == [False, True, True, True]
    assert same(cells[:0], cells, tolerances).shape == (0, 3)


def test_the_tolerance_is_a_share_of_the_deviation_and_holds_a_quarter_of_a_normal_column(schema):
    drawn = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(0)) * 3
    tolerances = schema.tolerances(drawn)
    assert tolerances[1:3].tolist() == [0.0, 0.0]
    assert float(tolerances[0]) == pytest.approx(0.319 * 3, rel=0.05)
    inside = (drawn[:, 0].abs() <= tolerances[0]).double().mean()
    assert float(inside) == pytest.approx(0.25, abs=0.02)
