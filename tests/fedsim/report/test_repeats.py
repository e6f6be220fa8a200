"""Runs that differ in their seed alone: means and intervals over seeds."""

import numpy as np
import pytest
from scipy import stats

from fedsim import api
from fedsim.core.rows import Leak
from fedsim.report.data import RunData
from fedsim.report.intervals import mean_interval
from fedsim.report.repeats import Repeats, over_seeds
from fedsim.run.ledger import leakage_table, titled
from fedsim.run.outcomes import NOT_SAFE
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config
from tests.fedsim.report.test_run import Reader


@pytest.fixture(scope="module")
def folders(recordings):
    return [recordings.of(small_config(seed=seed)).path for seed in (0, 1, 2)]


def data_of(folders):
    return [RunData(RunFolder(path)) for path in folders]


def test_an_interval_is_students():
    values = np.array([0.5, 0.6, 0.9])
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert mean_interval(values, -9.0, 9.0) == pytest.approx(expected)
    assert mean_interval(values, 0.4, 0.8) == (0.4, 0.8)
    assert mean_interval(values[:1], 0.0, 1.0) is None
    low, high = mean_interval(np.full(2, 0.9), 0.0, 1.0) or (0.0, 0.0)  # never of width 0
    assert (low, high) == pytest.approx((0.9 * 0.025**0.5, 1 - 0.1 * 0.025**0.5))
    assert mean_interval(np.full(2, 9.0), -np.inf, np.inf) is None


def test_an_attack_that_failed_in_another_seed_is_named(folders, tmp_path):
    runs = data_of(folders)
    rows = runs[1].ledger.drop_columns("title").to_pylist()
    broken = {"value": None, "outcome": "failed", "reason": "no pivot"}
    runs[1].ledger = titled(
        leakage_table(
            Leak(**{**row, **broken}) if row["attack"] == "llg" else Leak(**row) for row in rows
        )
    )
    [together] = over_seeds(runs)
    assert isinstance(together, Repeats)
    answers = together.answers["llg"]
    assert answers.updates == 3 * answers.failed > 0
    [row] = [row for row in together.rows if row.curve.title == "llg"]
    assert (row.seeds, row.curve.answers) == (2, answers)
    assert f"llg failed on {answers.failed} of {answers.updates} updates" in " ".join(
        together.verdict
    )
    assert together.verdict[-1] == NOT_SAFE


def test_runs_of_one_setting_are_taken_together(folders, recordings):
    other = recordings.of(small_config(local={"epochs": 2})).path
    alone, together = over_seeds(data_of([other, *folders]))
    assert alone.label == "epochs 2"
    assert isinstance(together, Repeats)
    assert together.label == "epochs 1"
    assert "95 % intervals of the mean over 3 seeds" in together.band
    [row] = [row for row in together.rows if row.curve.title == "llg"]
    runs = [{c.title: c for c in run.curves}["llg"].main for run in data_of(folders)]
    values = np.array([run.value for run in runs])
    assert row.seeds == 3
    assert row.curve.main.value == pytest.approx(values.mean())
    assert row.value == pytest.approx(mean_interval(values, 0.0, 1.0))
    second = np.array([run.mean[1] for run in runs])
    assert row.curve.main.mean[1] == pytest.approx(second.mean())
    ends = (row.curve.main.low[1], row.curve.main.high[1])
    assert ends == pytest.approx(mean_interval(second, -9.0, 9.0))


def test_one_seed_twice_is_no_repeat(folders):
    runs = over_seeds(data_of([folders[0], folders[0]]))
    assert [type(run) for run in runs] == [RunData, RunData]


def test_the_page_has_intervals_over_seeds(folders, tmp_path):
    page = Reader(api.report(folders, tmp_path / "seeds.html").read_text())
    assert "Over 3 seeds" in page.text
    assert "over 3 seeds (95 % interval of the distance:" in page.text
    rows = [row for row in page.rows if row[:4] == ["llg", "label", "asr", "3"]]
    [row] = over_seeds(data_of(folders))[0].rows[:1]
    assert rows[0][5] == row.texts[0]
    assert "Runs compared" not in page.text  # one setting is one picture
