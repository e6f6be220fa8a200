import html
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from adversary.labels.validity import LIMIT
from fedsim import api
from fedsim.config import Part
from fedsim.core.errors import ConfigError
from fedsim.core.tables import write_table, written_of
from fedsim.report.data import RunData
from fedsim.report.warnings import warnings
from fedsim.report.words import spans
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config

METRICS = ("asr", "skill", "exact", "precision", "recall")


class Reader(HTMLParser):
    """Collects a page's text, the rows of its tables, and whatever it would load."""

    def __init__(self, page):
        super().__init__()
        self.words, self.loads, self.tags, self.rows, self.cell = [], [], [], [], False
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [v for k, v in attrs if k in {"src", "href", "xlink:href"}]
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in {"td", "th"}

    def handle_data(self, data):
        if self.lasttag in {"script", "style"}:
            return
        self.words.append(data)
        if self.cell:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    clipped = small_config(defense=[{"name": "clip", "bound": 0.1}])
    return [
        api.run(small_config(), folder / "plain"),
        api.run(clipped, folder / "<clipped>"),
    ]


def changed(run, folder, leaks=(), measures=(), *, drop=()):
    """Copy a run with other rows in its tables; `drop` names metrics to leave out first."""
    shutil.copytree(run.path, folder)
    for name, rows in (("leakage", leaks), ("metrics", measures)):
        path = folder / f"{name}.parquet"
        table = pq.read_table(path)
        gone = pc.is_in(table["metric"], value_set=pa.array(drop, pa.string()))
        new = pa.Table.from_pylist(list(rows), schema=table.schema)
        whole = pa.concat_tables([table.filter(pc.invert(gone)), new])
        write_table(path, whole, written_of(path))
    return api.Run(folder)


def leaks_of(attack, asr, skill, *, blind=0.5, rounds=(1, 2, 3), clients="0123"):
    """Return ledger rows of an attack that does equally well everywhere."""
    values = {"asr": asr, "skill": skill, "exact": 0.0, "precision": 0.5, "recall": 0.5}
    return [
        {
            "round": r, "client": c, "attack": attack, "family": "label", "metric": metric,
            "value": value, "blind": blind if metric == "asr" else 0.0, "seconds": 0.001,
            "adaptive": False, "outcome": "graded",
        }
        for r in rounds for c in clients for metric, value in values.items()
    ]  # fmt: skip


def said(attack, what, reason, *, round_=1, client="0"):
    """Return a metrics row that an attack left."""
    return {
        "round": round_, "split": "attack", "metric": f"{attack}_{what}", "value": 1.0,
        "client": client, "reason": reason,
    }  # fmt: skip


def page_of(run, **options):
    """Return a run's page, read."""
    return Reader(api.report([run.path], **options).read_text())


def test_it_is_one_file_that_loads_nothing(runs):
    page = runs[0].report.read_text()
    reader = Reader(page)
    assert [load for load in reader.loads if not load.startswith(("#", "data:"))] == []
    names = "github.com/leeoniya/uPlot www.w3.org purl.org creativecommons.org matplotlib.org"
    assert not re.search(f"https?://(?!{'|'.join(map(re.escape, names.split()))})", page)
    assert reader.tags.count("svg") == 3
    for expected in ("plain", "llg", "idlg", "blind guess", "test accuracy", "fedavg, 4 clients"):
        assert expected in reader.text


def test_its_numbers_are_the_ledgers(runs):
    ledger = runs[0].ledger().to_pandas()
    rows = {row[0]: row[3:] for row in page_of(runs[0]).rows if len(row) == 13}
    for attack in ("llg", "idlg"):
        own = ledger[ledger["attack"] == attack]
        mean = own.groupby("metric")["value"].mean()
        asr = own[own["metric"] == "asr"]
        rounds = asr.groupby("round")["value"].mean()
        ms = 1000 * asr["seconds"].mean()
        shares = [rounds[1], rounds[3], mean["asr"], asr["blind"].mean()]
        rest = [mean["exact"], mean["precision"], mean["recall"], 1 - mean["asr"]]
        assert rows[attack] == [
            *(f"{100 * value:.1f} %" for value in shares), f"{mean['skill']:.2f}",
            *(f"{100 * value:.1f} %" for value in rest), f"{ms:.2f}",
        ]  # fmt: skip


def test_a_curve_is_the_mean_over_clients_in_each_round(runs):
    [curve] = [c for c in RunData(RunFolder(runs[0].path)).curves if c.attack == "llg"]
    own = [row for row in runs[0].ledger().to_pylist() if row["attack"] == "llg"]
    for metric, series in (("asr", curve.main), ("skill", curve.skills)):
        first = [r["value"] for r in own if r["round"] == 1 and r["metric"] == metric]
        assert series.mean[0] == pytest.approx(sum(first) / len(first))
        assert list(series.rounds) == [1, 2, 3]


def test_attacks_are_sorted_by_skill_and_baselines_are_marked_and_never_the_best(runs, tmp_path):
    leaks = leaks_of("random", 0.9, 0.9) + leaks_of("mid", 0.6, 0.2) + leaks_of("top", 0.8, 0.85)
    page = page_of(changed(runs[0], tmp_path / "run", leaks, drop=METRICS))
    assert [row[0] for row in page.rows if len(row) == 13][1:] == ["random baseline", "top", "mid"]
    assert "top, mean ASR" in page.text
    assert "random, mean ASR" not in page.text
    assert "recovered (ASR) by top" in page.text


def test_twenty_attacks_stay_readable(runs, tmp_path):
    leaks = [r for i in range(20) for r in leaks_of(f"attack-{i}", 0.02 * i + 0.5, 0.04 * i)]
    run = changed(runs[0], tmp_path / "run", leaks, drop=METRICS)
    page = page_of(run)
    named = Counter(re.findall(r"attack-\d+\b", page.text))
    assert "14 others" in page.text
    assert len([row for row in page.rows if len(row) == 13]) == 21
    assert page.text.count(", mean ASR") == 4
    assert named["attack-14"] == 2  # the last in the legend, and in the table
    assert named["attack-13"] == 1  # grey: in the table alone
    both = api.report([run.path, runs[0].path], tmp_path / "both.html").read_text()
    assert Reader(both).text.count("labels recovered (ASR)") == 1 + 6  # and against accuracy
    assert "the 6 attacks with the highest mean skill" in Reader(both).text


def test_whole_texts_are_not_called_chance_for_their_tokens(runs, tmp_path):
    text = [
        {**row, "family": "text", "metric": name, "value": value, "blind": blind}
        for row in leaks_of("one", 0.4, 0.0)
        if row["metric"] == "asr"
        for name, value, blind in (("token_f1", 0.3, 0.6), ("exact", 0.25, 0.0))
    ]
    run = changed(runs[0], tmp_path / "run", text, [], drop=(*METRICS, "validity"))
    assert not warnings(RunData(RunFolder(run.path)))
    page = Reader(api.report([run.path]).read_text())
    assert "one, mean token F1" in page.text


@pytest.mark.parametrize(
    ("grades", "validity", "expected"),
    [
        ((0.8, 0.6), [LIMIT, LIMIT, 0.1], []),
        ((0.8, 0.6), [0.1, 2.5, 4.0], ["is above 2 in rounds 2–3 (2.5 to 4.0)"]),
        ((0.8, 0.6), [3.0, 0.1, 0.1], ["is above 2 in round 1 (3.0)"]),
        ((0.8, 0.1), [], []),
        ((0.8, 0.09), [], ["The best, one, has a mean skill of 0.09 (below 0.1)"]),
        ((0.4, 0.2), [], ["mean ASR of 40.0 %. A guess without any update has 50.0 %"]),
        ((0.4, -0.2), [9.0], ["is above 2 in round 1 (9.0)", "a mean skill of -0.20"]),
    ],
)
def test_warnings_appear_exactly_when_they_should(runs, tmp_path, grades, validity, expected):
    measures = [
        {"round": i, "split": "server", "metric": "validity", "value": value}
        for i, value in enumerate(validity, start=1)
    ]
    leaks = leaks_of("one", *grades) + leaks_of("worse", 0.1, -0.5)
    run = changed(runs[0], tmp_path / "run", leaks, measures, drop=(*METRICS, "validity"))
    sentences = warnings(RunData(RunFolder(run.path)))
    assert len(sentences) == len(expected)
    for sentence, part in zip(sentences, expected, strict=True):
        assert part in sentence
        assert sentence in page_of(run).text
        assert "privacy" in sentence or "not mean that the updates are safe" in sentence


def test_a_baseline_alone_is_no_attack_that_fails(runs, tmp_path):
    run = changed(runs[0], tmp_path / "run", leaks_of("uniform", 0.5, 0.0), drop=METRICS)
    assert not [text for text in warnings(RunData(RunFolder(run.path))) if "chance" in text]


def test_remarks_are_grouped_and_are_no_failures(runs, tmp_path):
    notes = [
        said(name, "note", f"num_examples: told {c + 8} labels", round_=r, client=str(c))
        for name in ("llg", "idlg") for r in (1, 3) for c in range(3)
    ]  # fmt: skip
    failed = [said("idlg", "failed", f"<one> of {r}", round_=r, client="3") for r in (1, 2)]
    page = page_of(changed(runs[0], tmp_path / "run", measures=notes + failed))
    assert (
        "llg and idlg answered with a remark (3 clients, rounds 1 and 3): "
        "num_examples: told 8 labels (and 2 more like it)." in page.text
    )
    assert page.text.count("answered with a remark") == 1
    assert ["idlg_failed", "2", "3", "1–2", "<one> of 1 and 1 alike"] in page.rows
    assert "2 failures" in page.text


def test_the_chosen_client_is_the_most_exposed(runs, tmp_path):
    leaks = leaks_of("llg", 0.6, 0.3, clients="0123")
    for row in leaks:
        if row["metric"] == "skill" and row["client"] == "2":
            row["value"] = 0.7
    run = changed(runs[0], tmp_path / "run", leaks, drop=METRICS)
    page = page_of(run)
    assert "True and inferred labels of client 2" in page.text
    assert (
        "learned the most from client 2 (mean skill 0.70, 0.30 for the median client)" in page.text
    )
    assert "The picture shows rounds 1, 2 and 3 of the 3 recorded" in page.text
    # One lucky round does not make a client the most exposed.
    lucky = leaks_of("llg", 1.0, 1.0, rounds=(2,), clients="9")
    page = page_of(changed(run, tmp_path / "lucky", lucky))
    assert "learned the most from client 2" in page.text
    assert "from client 2 among those in at least 3 rounds" in page.text


def test_a_client_can_be_asked_for(runs, tmp_path):
    page = page_of(runs[0], client="1", out=tmp_path / "one.html")
    assert "True and inferred labels of client 1" in page.text
    assert "Client 1 was requested (mean skill" in page.text
    with pytest.raises(ConfigError, match=r"one of the 4 clients attacked, got '11'; .* is '1'$"):
        api.report([runs[0].path], tmp_path / "none.html", client="11")
    with pytest.raises(ConfigError, match="--client: must go with one run, got 2 runs"):
        api.report([run.path for run in runs], tmp_path / "none.html", client="1")
    assert not (tmp_path / "none.html").exists()


def test_an_answer_in_per_mille_is_scaled_and_a_missing_one_is_left_out(runs, tmp_path):
    run = changed(runs[0], tmp_path / "run")
    folder = RunFolder(run.path)
    for round_ in (1, 2, 3):
        guesses = dict(folder.guesses(round_))
        (run.path / "guesses" / f"{round_:04d}.safetensors").unlink()
        folder.write_guesses(round_, {"llg/0": 10 * guesses["llg/0"]} if round_ < 3 else {})
    page = page_of(run, client="0")
    assert "Markers are what llg inferred from its update" in page.text
    assert "Answers are scaled to the true number of labels if their sum differs" in page.text
    shutil.rmtree(run.path / "guesses")
    assert "No attack answered" in page_of(run, client="0").text


def test_without_truth_the_inferred_counts_are_drawn_alone(runs, tmp_path):
    shutil.copytree(runs[0].path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "truth")
    api.attack(tmp_path / "run", [Part(name="llg"), Part(name="idlg")])
    page = page_of(api.Run(tmp_path / "run"))
    assert "Inferred labels of client 0" in page.text
    assert (
        "The ground truth is not available. Markers are what the first 2 attacks inferred"
        in page.text
    )
    assert "Nothing could be graded" in page.text
    assert "chance" not in page.text
    assert page.tags.count("svg") == 2


def test_numbers_in_words():
    assert spans([3]) == "3"
    assert spans([5, 1, 2, 2]) == "1–2 and 5"
    assert spans([1, 2, 3, 7, 9, 10]) == "1–3, 7 and 9–10"


def test_runs_are_compared_side_by_side(runs, tmp_path):
    page = api.report([run.path for run in runs], tmp_path / "both.html").read_text()
    text = Reader(page).text
    assert "Runs compared" in text
    assert "clip (bound = 0.1)" in text
    assert "&lt;clipped&gt;" in page  # names are escaped


def test_what_is_said_of_several_runs_stands_once(runs, tmp_path, monkeypatch):
    own = lambda run: ["<b>of each</b>", f"of {run.folder.path.name}"]
    monkeypatch.setattr("fedsim.report.run.warnings", own)
    page = api.report([run.path for run in runs], tmp_path / "both.html").read_text()
    assert page.count("<b>All runs:</b> &lt;b&gt;of each&lt;/b&gt;") == 1
    for run in runs:
        assert page.count(f"</b> of {html.escape(run.path.name)}<") == 1


def test_the_same_run_gives_the_same_page(runs, tmp_path):
    first, second = (api.report([runs[0].path], tmp_path / f"{i}.html").read_text() for i in "ab")
    assert first == second


def test_a_run_without_a_finished_round_is_one_sentence(tmp_path):
    RunFolder.create(tmp_path / "run", small_config())
    with pytest.raises(ConfigError, match="must have a finished round, got none"):
        api.report([tmp_path / "run"])


def test_a_run_without_attacks_has_a_report(tmp_path):
    run = api.run(small_config(attack=[]), Path(tmp_path, "run"))
    assert "Nothing could be graded" in page_of(run).text
