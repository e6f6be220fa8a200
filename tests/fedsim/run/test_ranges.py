from dataclasses import replace

import pytest
import torch

from adversary.grading import selection
from fedsim import api, data
from fedsim.config import Part
from fedsim.config.adversary import RangeQueries
from fedsim.core.errors import ConfigError
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.types import Ranges
from fedsim.run.prepare import prepare
from fedsim.run.ranges import around, draw_ranges, rows_within
from fedsim.run.truth import with_ranges
from tests.builders import small_config, token_dataset

BOUNDS = torch.zeros(6), torch.ones(6)
QUERIES = {
    "point": RangeQueries(missing=0.0),
    "missing": RangeQueries(missing=0.5),
    "perturbed": RangeQueries(missing=0.0, radius=0.1),
    "both": RangeQueries(missing=0.3, radius=0.05),
}


def drawn(count, seed=0):
    stream = generator(seed, "records")
    return torch.rand(count, 6, generator=stream), torch.arange(count) % 3


@pytest.mark.parametrize("queries", QUERIES.values(), ids=QUERIES)
def test_a_range_holds_its_record(queries):
    records, labels = drawn(50)
    ranges = around(records, labels, BOUNDS, queries, generator(0))
    assert bool(((ranges.low <= records) & (records <= ranges.high)).all())
    width = ranges.high - ranges.low
    open_ = (ranges.low == 0) & (ranges.high == 1)
    assert open_.sum(dim=1).tolist() == [round(6 * queries.missing)] * 50
    torch.testing.assert_close(
        width[~open_], torch.full_like(width[~open_], 2 * queries.radius), rtol=0, atol=1e-6
    )


def test_the_middle_of_a_perturbed_range_is_not_the_record():
    records, labels = drawn(50)
    ranges = around(records, labels, BOUNDS, QUERIES["perturbed"], generator(0))
    off = (ranges.low + ranges.high) / 2 - records
    assert float(off.abs().max()) <= 0.1 + 1e-6
    assert float(off.abs().mean()) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("queries", QUERIES.values(), ids=QUERIES)
def test_the_rows_in_a_range_are_all_that_fit_it(queries):
    records, labels = drawn(300)
    records = (records * 3).round() / 3  # many twins
    ranges = around(records[:40], labels[:40], BOUNDS, queries, generator(0))
    expected = {
        (r, n)
        for r in range(40)
        for n in range(300)
        if labels[n] == ranges.labels[r]
        and bool(((ranges.low[r] <= records[n]) & (records[n] <= ranges.high[r])).all())
    }
    pairs = rows_within(ranges, records, labels)
    assert set(map(tuple, pairs.T.tolist())) == expected
    assert {(r, r) for r in range(40)} <= expected


def test_a_range_is_true_where_any_record_used_lies_in_it_whoever_it_was_built_around():
    plan = prepare(small_config(attack="ramia", auxiliary={"range": {"count": 60}}))
    dataset, asked = plan.federated.dataset, plan.ranges
    twins = Ranges(
        torch.full_like(dataset.inputs[:2], -1e3), torch.full_like(dataset.inputs[:2], 1e3),
        torch.tensor([3, 4]),
    )  # fmt: skip
    wide = replace(asked, ranges=twins, hits=rows_within(twins, dataset.inputs, dataset.labels))
    rows = torch.nonzero(dataset.labels == 3)[:1, 0]
    truth = with_ranges(replace(plan, ranges=wide), Truth(dataset.labels[rows], rows))
    assert truth.ranges.tolist() == [True, False]
    assert truth.range_classes.tolist() == [3, 4]
    for rows in plan.federated.clients[:2]:
        truth = with_ranges(plan, Truth(dataset.labels[rows], rows))
        built_around = int(truth.ranges.sum())
        assert 0 < built_around < 60
        assert torch.equal(truth.ranges, asked.hit_by(rows))


def test_test_rows_are_in_no_range_that_a_client_used():
    asked = prepare(small_config(attack="ramia", auxiliary={"range": {"count": 60}})).ranges
    assert len(asked.ranges.labels) == 60
    # Half are built around training rows; digits differ from one another in half their cells.
    assert asked.hits[0].unique().tolist() == list(range(30))


@pytest.mark.parametrize(
    ("section", "rule"),
    [
        ({"missing": 1.0}, "missing: .* should be less than 1, got 1.0"),
        ({"missing": -0.1}, "missing: .* should be greater than or equal to 0, got -0.1"),
        ({"radius": -0.1}, "radius: .* should be greater than or equal to 0, got -0.1"),
        ({"count": -1}, "count: .* should be greater than or equal to 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(section, rule):
    with pytest.raises(ConfigError, match=f"auxiliary.range.{rule}"):
        small_config(auxiliary={"range": section})


def test_whole_numbers_are_not_off_by_a_share(tmp_path):
    dataset = token_dataset(tmp_path)
    rows = tuple(torch.arange(60).split(20))
    federated = data.Federated(dataset, rows[:2], rows[2])
    assert len(draw_ranges(federated, RangeQueries(count=8), 0).ranges.labels) == 8
    with pytest.raises(ConfigError, match="must be 0 for inputs that are whole numbers, got 0.1"):
        draw_ranges(federated, RangeQueries(count=8, radius=0.1), 0)


def test_without_ranges_the_attack_is_refused_by_name():
    plan = prepare(small_config(attack="llg"))
    assert plan.ranges is None
    with pytest.raises(ConfigError, match="attack.ramia: needs auxiliary ranges, got none"):
        selection.build([Part(name="ramia")], plan.auxiliary)


def test_a_run_grades_ranges(tmp_path, undrawn):
    config = small_config(
        attack="ramia", federation={"rounds": 1}, auxiliary={"range": {"count": 80}}
    )
    rows = api.means(api.run(config, tmp_path / "run").ledger())
    assert {row["metric"] for row in rows} == {"auroc", "advantage"}
    assert {row["blind"] for row in rows if row["metric"] == "auroc"} == {0.5}
