import re
from html.parser import HTMLParser

import pytest

from fedsim import api
from fedsim.errors import ConfigError
from fedsim.report import _curve
from fedsim.run_folder import RunFolder
from tests.builders import small_config


class Reader(HTMLParser):
    """Collects a page's text and whatever it would load."""

    def __init__(self, page):
        super().__init__()
        self.text, self.loads, self.tags = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [v for k, v in attrs if k in {"src", "href", "xlink:href"}]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    clipped = small_config(defense=[{"name": "clip", "bound": 0.1}])
    return [api.run(small_config(), folder / "plain"), api.run(clipped, folder / "<clipped>")]


def test_it_is_one_file_that_loads_nothing(runs):
    page = runs[0].report.read_text()
    reader = Reader(page)
    assert [load for load in reader.loads if not load.startswith(("#", "data:"))] == []
    assert not re.search(
        r"https?://(?!www\.w3\.org|purl\.org|creativecommons\.org|matplotlib\.org)", page
    )
    assert reader.tags.count("svg") == 2
    text = " ".join(reader.text)
    for expected in ("plain", "llg", "idlg", "blind guess", "test accuracy", "fedavg, 4 clients"):
        assert expected in text


def test_its_numbers_are_the_ledgers(runs):
    ledger = runs[0].ledger().to_pylist()
    own = [r for r in ledger if r["attack"] == "llg" and r["metric"] == "asr"]
    mean = sum(row["value"] for row in own) / len(own)
    assert f"{100 * mean:.1f} %" in runs[0].report.read_text()
    table = runs[0].ledger()
    curve = _curve(table.filter(__import__("pyarrow").compute.field("attack") == "llg"))
    first = [row["value"] for row in own if row["round"] == 1]
    assert curve.mean[0] == pytest.approx(sum(first) / len(first))
    assert list(curve.rounds) == [1, 2, 3]


def test_runs_are_compared_side_by_side(runs, tmp_path):
    page = api.report([run.path for run in runs], tmp_path / "both.html").read_text()
    text = " ".join(Reader(page).text)
    assert "Runs compared" in text
    assert "clip (bound = 0.1)" in text
    assert "&lt;clipped&gt;" in page  # names are escaped


def test_the_same_run_gives_the_same_page(runs, tmp_path):
    first, second = (api.report([runs[0].path], tmp_path / f"{i}.html").read_text() for i in "ab")
    assert first == second


def test_a_run_without_a_finished_round_is_one_sentence(tmp_path):
    RunFolder.create(tmp_path / "run", small_config())
    with pytest.raises(ConfigError, match="must have a finished round, got none"):
        api.report([tmp_path / "run"])
