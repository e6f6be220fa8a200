"""The verdict on a run: what leaked, how far above blind, how sure that is."""

import numpy as np
import pyarrow as pa
import pytest

from fedsim import api
from fedsim.core.units import scale_of
from fedsim.report.data import RunData
from fedsim.report.intervals import gap_of
from fedsim.report.verdict import verdict, verdict_of
from fedsim.run.glance import strongest
from fedsim.run.ledger import LEAKAGE
from fedsim.run.outcomes import NOT_SAFE, num_uploads
from fedsim.run.run_folder import RunFolder
from tests import unanswering as un
from tests.builders import small_config
from tests.fedsim.report.test_run import Reader, changed, leaks_of

METRICS = ("asr", "skill", "exact", "precision", "recall")
NOTHING = "Nothing above blind was recovered by these attacks."


def graded(values, blind=0.5):
    """Return ledger rows of one attack: values of rounds (rows) and clients (columns)."""
    return [
        {
            "round": r, "client": str(c), "attack": "a", "family": "label", "metric": "asr",
            "value": float(value), "blind": blind, "seconds": 0.0, "adaptive": False,
            "outcome": "graded",
        }
        for r, row in enumerate(values, start=1) for c, value in enumerate(row)
    ]  # fmt: skip


def gap(values, blind=0.5, *, metric="asr"):
    return gap_of(pa.Table.from_pylist(graded(values, blind), schema=LEAKAGE), scale_of(metric))


def leakage(rows):
    return pa.Table.from_pylist(rows, schema=LEAKAGE)


def interval_of(it):
    interval = it.interval()
    assert interval is not None
    return interval


@pytest.mark.worked
def test_bits_have_no_end_at_one():
    low, high = interval_of(gap(3 + np.tile(np.arange(6.0)[:, None], 6), metric="bits"))
    assert low < 5.5 - 0.5 < high  # the mean of 3 to 8 less blind .5
    assert high > 5
    assert interval_of(gap(np.full((6, 6), 0.9)))[1] == pytest.approx(0.5 - 0.1 * 0.5, abs=0.1)


def verdict_on(recordings, path, *leaks):
    run = recordings.copy(small_config(), path / "run")
    rows = [row for of in leaks for row in of]
    return verdict(RunData(RunFolder(changed(run, path / "changed", rows, drop=METRICS).path)))


@pytest.mark.worked
def test_an_interval_by_hand():
    # Two-way clusters of a 5 × 5 grid in which rounds alone matter: that of the rounds is largest.
    rounds = np.array([0.6, 0.7, 0.8, 0.9, 1.0])
    low, high = interval_of(gap(np.tile(rounds[:, None], 5)))
    error = np.sqrt(5 / 4 * ((5 * (rounds - 0.8)) ** 2).sum()) / 25
    assert low == pytest.approx(0.3 - 2.776445 * error, abs=1e-6)
    assert high == pytest.approx(0.3 + 2.776445 * error, abs=1e-6)


@pytest.mark.worked
def test_equal_values_have_an_exact_interval_and_one_update_has_none():
    low, high = interval_of(gap(np.full((1, 8), 0.9)))
    assert low == pytest.approx(0.9 * 0.025 ** (1 / 8) - 0.5)
    assert high == pytest.approx(1 - 0.1 * 0.025 ** (1 / 8) - 0.5)
    assert gap([[0.9]]).interval() is None
    assert gap(np.full((1, 8), 9.0), metric="psnr").interval() is None
    assert gap([[0.9]]).over == ""
    assert gap(np.zeros((3, 8))).over == "8 clients"
    assert gap(np.zeros((6, 8))).over == "8 clients and 6 rounds"
    assert gap(np.zeros((3, 2))).over == "3 rounds"


@pytest.mark.theorem
def test_an_interval_covers_a_mean_over_clients_and_rounds():
    stream, covered = np.random.default_rng(0), 0
    for _ in range(400):
        effects = stream.normal(size=(12, 1)) + stream.normal(size=10)
        values = effects + stream.normal(size=(12, 10))
        low, high = interval_of(gap(values, 0.0, metric="psnr"))
        covered += low <= 0 <= high
    assert covered >= 0.92 * 400


def test_what_is_above_blind_is_said_with_its_interval(recordings, tmp_path):
    stream = np.random.default_rng(0)
    leaks = graded(0.9 + 0.02 * stream.random((6, 6)))
    leaks[8]["value"] = 0.99  # round 2, client 2
    it = verdict_on(recordings, tmp_path, leaks)
    assert it.leaks
    [finding] = it.findings
    assert finding.state == "above"
    assert finding.interval[0] <= finding.gap.mean <= finding.interval[1]
    text = " ".join(it.paragraphs)
    assert it.headline.startswith("label: a reaches ASR 91.")
    assert "points above blind (50.0 %)" in it.headline
    assert "The 95 % interval over 6 clients and 6 rounds is 4" in text
    assert "above blind in all 6 rounds, from round 1 on." in text
    assert "for client 2 in round 2 (99.0 %, blind 50.0 %)." in text
    assert "The attack answered every update." in text
    assert "safe" not in text


def test_what_is_below_blind_is_not_called_leakage(recordings, tmp_path):
    it = verdict_on(recordings, tmp_path, leaks_of("a", 0.4, 0.9), leaks_of("b", 0.3, 0.8))
    assert not it.leaks
    assert it.headline == f"{NOTHING} {NOT_SAFE}"
    assert "label: the best attack, a, reaches ASR 40.0 %, 10.0 points below" in it.paragraphs[1]
    assert it.limits[0] == "All 2 attacks answered every update."
    page = Reader(api.report([tmp_path / "changed"]).read_text())
    assert page.text.count("not above blind") == 2
    assert NOTHING in page.text


def test_answers_without_a_grade_are_no_answers_at_blind(recordings, tmp_path):
    open_ = [{**row, "value": None, "outcome": "no truth"} for row in leaks_of("b", 0.9, 0.9)]
    it = verdict_on(recordings, tmp_path, leaks_of("a", 0.4, 0.0), open_)
    assert (
        it.headline
        == f"Nothing above blind was recovered by the attacks that were graded. {NOT_SAFE}"
    )
    assert "No answer was graded of b. What they recovered is not measured." in it.paragraphs[-1]


def test_one_update_that_leaks_is_named_where_the_mean_is_below_blind(recordings, tmp_path):
    values = np.full((6, 6), 0.4)
    single = graded(values)
    single[8]["value"] = 1.0  # round 2, client 2, of an attack that is not the best on average
    it = verdict_on(recordings, tmp_path, leaks_of("b", 0.49, 0.0), single)
    assert it.headline.startswith("On average, nothing above blind was recovered")
    assert NOT_SAFE in it.headline
    text = " ".join(it.paragraphs)
    assert "a is farthest above blind for client 2 in round 2 (100.0 %, blind 50.0 %)." in text


def test_one_example_that_is_recovered_is_not_hidden_by_a_mean_over_examples(recordings, tmp_path):
    of = lambda metric, values, blind: [
        {**row, "family": "reconstruction", "metric": metric} for row in graded(values, blind)
    ]
    mean = of("psnr", np.full((6, 6), 9.0), 11.0)
    it = verdict_on(recordings, tmp_path, [*mean, *of("match_rate", np.full((6, 6), 0.125), 0.0)])
    assert it.leaks
    assert it.headline.startswith(
        "reconstruction: a reaches match rate 12.5 %, 12.5 points above blind (0.0 %)"
    )
    assert "for all 2 comparisons together" in it.paragraphs[0]
    it = verdict_on(recordings, tmp_path / "none", [*mean, *of("match_rate", np.zeros((6, 6)), 0)])
    assert it.headline == f"{NOTHING} {NOT_SAFE}"


@pytest.mark.parametrize("mean", [0.5, 0.61])
def test_whole_texts_are_not_hidden_by_a_mean_over_their_tokens(recordings, tmp_path, mean):
    of = lambda metric, values, blind: [
        {**row, "family": "text", "metric": metric} for row in graded(values, blind)
    ]
    tokens = np.full((6, 6), mean) + np.where(np.arange(6) < 3, 0.4, -0.4)[:, None]
    rows = [*of("token_f1", tokens, 0.6), *of("exact", np.full((6, 6), 0.25), 0.0)]
    it = verdict_on(recordings, tmp_path, rows)
    assert it.leaks
    assert it.headline.startswith("text: a reaches exact 25.0 %, 25.0 points above blind (0.0 %)")


def test_one_whole_text_of_a_single_update_is_no_chance(recordings, tmp_path):
    of = lambda metric, value, blind: {
        **graded(np.full((6, 6), value), blind)[0],
        "family": "text",
        "metric": metric,
    }
    it = verdict_on(recordings, tmp_path, [of("token_f1", 0.3, 0.6)], [of("exact", 0.25, 0.0)])
    assert it.headline.startswith("text: a reaches exact 25.0 %, 25.0 points above blind (0.0 %)")
    it = verdict_on(
        recordings, tmp_path / "none", [of("token_f1", 0.3, 0.6), of("exact", 0.0, 0.0)]
    )
    assert it.headline == f"{NOTHING} {NOT_SAFE}"


@pytest.mark.parametrize(
    ("column", "value"), [("value", np.nan), ("value", np.inf), ("blind", np.nan)]
)
def test_what_is_no_number_hides_no_leak_and_is_named(recordings, tmp_path, column, value):
    leaks = graded(0.9 + 0.02 * np.random.default_rng(0).random((6, 6)))
    leaks[0][column] = value
    it = verdict_on(recordings, tmp_path, leaks)
    assert it.leaks
    assert "Values that are not finite are left out: 1 of a." in it.paragraphs[-1]
    assert strongest(leakage(leaks)).attack == "a"
    alone = [{**row, column: value} for row in leaks]
    it = verdict_on(recordings, tmp_path / "alone", alone)
    assert not it.findings
    assert "What they stand for is open." in " ".join(it.paragraphs)


def test_an_attack_that_was_due_on_no_upload_is_named(recordings, tmp_path):
    run = recordings.copy(small_config(attack=["llg", "idlg"]), tmp_path / "run")
    folder = RunFolder(run.path)
    assert "Never run" not in " ".join(verdict_of(folder).limits)
    rows = [row for row in folder.ledger().to_pylist() if row["attack"] == "llg"]
    folder._tables.write(leakage(rows), folder.metrics())
    it = verdict_of(RunFolder(run.path))
    assert it.limits[-1] == "Never run, though in the config: idlg."


def test_chance_is_not_called_leakage(recordings, tmp_path):
    values = 0.5 + 0.2 * np.random.default_rng(3).normal(size=(6, 6))
    it = verdict_on(recordings, tmp_path, graded(values - values.mean() + 0.51))
    assert not it.leaks
    assert [finding.state for finding in it.findings] == ["unsure"]
    assert "It includes blind: chance is not excluded." in it.paragraphs[0]


def test_leakage_in_single_rounds_is_not_hidden_by_a_mean(recordings, tmp_path):
    values = 0.3 + 0.01 * np.random.default_rng(0).random((6, 10))
    values[:2] += 0.6
    it = verdict_on(recordings, tmp_path, graded(values))
    assert it.leaks
    assert [finding.state for finding in it.findings] == ["in part"]
    assert it.findings[0].sure_rounds == [1, 2]
    text = " ".join(it.paragraphs)
    assert "above blind in 2 of 6 rounds (1–2)." in text
    assert "Alone, it is above blind beyond chance for rounds 1–2." in text
    assert NOTHING not in text


def test_more_attacks_need_more_evidence(recordings, tmp_path):
    values = 0.52 + 0.03 * np.random.default_rng(1).normal(size=(1, 12))
    one = verdict_on(recordings, tmp_path / "one", graded(values))
    others = [leaks_of(f"x{i}", 0.4, 0.0, rounds=(1,)) for i in range(40)]
    many = verdict_on(recordings, tmp_path / "many", graded(values), *others)
    low, high = one.findings[0].interval or (0.0, 0.0)
    assert many.findings[0].interval[0] < low < high < many.findings[0].interval[1]
    assert "for all 41 attacks together" in many.paragraphs[0]


def test_attacks_without_an_answer_are_counted_and_named(recordings):
    it = verdict_of(RunFolder(recordings.of(un.ALL_CRASH).path))
    assert not it.leaks
    assert it.headline.startswith("Nothing could be graded: no attack gave an answer.")
    assert "2 of 2 attacks gave no answer:" in it.paragraphs[-1]
    assert f"{un.CRASH} (failed on 6 of 6 updates: RuntimeError: no pivot" in it.paragraphs[-1]
    mixed = verdict_of(RunFolder(recordings.of(un.MIXED).path))
    assert "attacks gave no answer" in mixed.paragraphs[-1]
    assert f"{un.PARTLY} failed on 4 of 6 updates" in mixed.paragraphs[-1]
    nothing = verdict_of(RunFolder(recordings.of(small_config(attack=[])).path))
    assert nothing.headline == "No attack was run. What the updates give away is not measured."


def test_a_verdict_says_which_attacks_saw_a_part_of_the_uploads(recordings, tmp_path):
    run = recordings.copy(small_config(attack=["llg"]), tmp_path / "run")
    uploads = num_uploads(run.path)
    whole = verdict(RunData(RunFolder(run.path))).limits
    assert "Not every upload was attacked" not in " ".join(whole)
    rows = [row for row in run.ledger().to_pylist() if row["attack"] == "llg"]
    kept = [row for row in rows if (row["round"], row["client"]) == (1, rows[0]["client"])]
    changed(run, tmp_path / "changed", [{**row, "attack": "idlg"} for row in kept])
    limits = verdict_of(RunFolder(tmp_path / "changed")).limits
    assert f"Not every upload was attacked: idlg was run on 1 of {uploads} recorded uploads." in (
        " ".join(limits)
    )
