"""Figures for papers: the numbers are those drawn, text is text, and nothing is cut off."""

import csv
import re

import pytest

from fedsim import api
from fedsim.core.errors import ConfigError
from tests.builders import small_config

ENDINGS = {"svg", "pdf", "csv"}


@pytest.fixture(scope="module")
def figures(recordings, tmp_path_factory):
    """The figures of a run, in two widths."""
    folder = tmp_path_factory.mktemp("figures")
    run = recordings.copy(small_config(), folder / "run")
    for name, width in (("wide", None), ("narrow", 3.5)):
        api.report([run.path], figures=folder / name, width=width)
    return run, folder


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_figure_is_there_in_three_forms(figures):
    _, folder = figures
    names = [path.name for path in (folder / "wide").iterdir()]
    stems = {name.rpartition(".")[0] for name in names}
    assert {f"{stem}.{ending}" for stem in stems for ending in ENDINGS} == set(names)
    assert {"leakage-and-accuracy-over-training", "who-leaks-when"} < stems
    assert [path.name for path in sorted((folder / "narrow").iterdir())] == sorted(names)


def test_the_numbers_are_the_ledgers(figures):
    run, folder = figures
    ledger = run.ledger().to_pandas()
    asr = ledger[(ledger["metric"] == "asr") & (ledger["attack"] == "llg")]
    rows = rows_of(folder / "wide" / "leakage-and-accuracy-over-training.csv")
    drawn = [r for r in rows if r["panel"].startswith("labels") and r["kind"] == "line"]
    line = {float(r["x"]): float(r["y"]) for r in drawn if r["series"] == "llg"}
    assert line == pytest.approx(asr.groupby("round")["value"].mean().to_dict())
    blind = {float(r["x"]): float(r["y"]) for r in drawn if r["series"] == "blind guess"}
    assert blind == pytest.approx(asr.groupby("round")["blind"].mean().to_dict())
    [band] = [r for r in rows if r["series"].startswith("llg, from the 10th") and r["x"] == "2.0"][
        :1
    ]
    clients = asr[asr["round"] == 2]["value"]
    assert float(band["low"]) == pytest.approx(clients.quantile(0.1))
    assert float(band["high"]) == pytest.approx(clients.quantile(0.9))
    cells = rows_of(folder / "wide" / "who-leaks-when.csv")
    values = {(r["client"], int(r["round"])): float(r["value"]) for r in cells}
    assert values == pytest.approx(asr.set_index(["client", "round"])["value"].to_dict())


@pytest.mark.parametrize(("name", "points"), [("wide", 7.0 * 72), ("narrow", 3.5 * 72)])
def test_text_is_text_and_the_width_is_the_columns(figures, name, points):
    _, folder = figures
    text = (folder / name / "leakage-and-accuracy-over-training.svg").read_text()
    assert f'width="{points:g}pt"' in text
    assert re.search(">round</text>", text)
    pdf = (folder / name / "leakage-and-accuracy-over-training.pdf").read_bytes()
    assert b"/Type /Font" in pdf
    assert b"CreationDate" not in pdf


def test_a_width_that_no_page_has_is_refused(figures, tmp_path):
    run, _ = figures
    with pytest.raises(ConfigError, match="--width: must be from 3 to 20 inches, got 2"):
        api.report([run.path], figures=tmp_path, width=2)
    with pytest.raises(ConfigError, match="--width: must go with --figures, got no folder"):
        api.report([run.path], width=4)
