"""What a page's script is given: small, safe, and the ledger's own numbers."""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from fedsim import api
from fedsim.core.tables import write_table, written_of
from fedsim.report.data import RunData
from fedsim.report.embed import DIGITS, MISSING, as_json, library, packed, payload
from fedsim.report.exposed import exposed, most_exposed
from fedsim.run.ledger import LEAKAGE
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config

SCRIPT = "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
STYLE = "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"
CLIENT = "<script>alert(2)<!-- & 'x' {{ 7*7 }}"  # a name of a file
HOSTILE = "</script><script>alert(1)</script><!-- & 'x' \"y\" {{ 7*7 }}"


def unpacked(text, low, high):
    codes = [64 * DIGITS.index(a) + DIGITS.index(b) for a, b in re.findall("(.)(.)", text)]
    return [None if c == MISSING else low + (high - low) * c / (MISSING - 1) for c in codes]


def made(run, attacks, rounds, clients, *, names=None, last=None):
    """Give a run a ledger of attacks on labels that find less as the rounds go on."""
    stream, number = np.random.default_rng(0), rounds * clients
    tables = []
    for place in range(attacks):
        values = stream.random(number).round(3)
        columns = {
            "round": np.repeat(np.arange(1, rounds + 1), clients),
            "client": np.tile(names or np.arange(clients).astype(str), rounds),
            "attack": [last if last and place == attacks - 1 else f"attack-{place}"] * number,
            "family": ["label"] * number,
            "metric": ["asr"] * number,
            "value": values,
            "blind": np.full(number, 0.5),
            "seconds": np.zeros(number),
            "ceiling": np.ones(number),
            "adaptive": np.zeros(number, bool),
            "outcome": ["graded"] * number,
            "reason": pa.nulls(number, pa.string()),
        }
        tables.append(pa.table(columns).cast(LEAKAGE))
    path = run.path / "leakage.parquet"
    write_table(path, pa.concat_tables(tables), written_of(path))
    return RunData(RunFolder(run.path))


def beyond_pictures(page):
    return len(re.sub("<svg.*?</svg>", "", page, flags=re.DOTALL).encode())


def test_the_chart_library_is_the_released_one():
    it = library()
    assert it["version"] == "1.6.32"
    assert hashlib.sha256(it["script"].encode()).hexdigest() == SCRIPT
    assert hashlib.sha256(it["style"].encode()).hexdigest() == STYLE
    assert it["licence"].startswith("The MIT License (MIT)")
    assert it["version"] in it["script"][:80]


def test_packed_numbers_come_back():
    values = np.array([0.0, 0.25, np.nan, 1.0, 0.3333, np.inf])
    back = unpacked(packed(values, 0.0, 1.0), 0.0, 1.0)
    assert [value is None for value in back] == [False, False, True, False, False, True]
    assert np.allclose([back[i] for i in (0, 1, 3, 4)], values[[0, 1, 3, 4]], atol=0.5 / 4094)
    assert unpacked(packed(np.array([5.0, 5.0]), 5.0, 5.0), 5.0, 5.0) == [5.0, 5.0]


def test_no_text_ends_the_script(recordings, tmp_path):
    assert json.loads(as_json({HOSTILE: [HOSTILE]})) == {HOSTILE: [HOSTILE]}
    assert not set("<>&") & set(as_json(HOSTILE))
    run = recordings.copy(small_config(), tmp_path / "<run>")
    made(run, 2, 2, 2, names=["7", CLIENT], last=HOSTILE)
    page = api.report([run.path]).read_text()
    assert "<script>alert" not in page
    assert "alert(1)" in page
    assert "alert(2)" in page
    assert "7*7" in page


def test_the_script_has_the_ledgers_numbers(recordings, tmp_path):
    data = made(recordings.copy(small_config(), tmp_path / "run"), 2, 6, 3)
    it = json.loads(payload([data]) or "")
    frame = data.ledger.to_pandas()
    for curve, cells in zip(it["curves"], it["map"]["cells"], strict=True):
        rows = frame[frame["attack"] == curve["title"]]
        means = rows.groupby("round")["value"].mean()
        assert np.allclose(unpacked(curve["mean"], curve["low"], curve["high"]), means, atol=3e-4)
        grid = rows.pivot(index="client", columns="round", values="value").to_numpy().ravel()
        assert np.allclose(unpacked(cells["values"], cells["low"], cells["high"]), grid, atol=3e-4)
        highest = rows.loc[rows.groupby("client")["value"].idxmax()]
        assert cells["peak"] == highest["round"].tolist()
    [table] = exposed(data)
    best = frame[frame["attack"] == table.curve.attack]
    top = best.loc[best.groupby("client")["value"].idxmax()]
    assert [row[:3] for row in table.rows] == list(
        zip(top["client"], top["round"], top["value"], strict=True)
    )


def test_of_many_clients_the_most_exposed_are_shown(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr("fedsim.report.exposed.MOST", 3)
    data = made(recordings.copy(small_config(), tmp_path / "run"), 1, 4, 9)
    frame = data.ledger.to_pandas()
    means = frame.groupby("client")["value"].mean().sort_values(ascending=False)
    names = most_exposed(data.clients, [curve.gap for curve in data.curves if curve.gap])
    assert names == sorted(means.index[:3])
    page = api.report([tmp_path / "run"]).read_text()
    assert "3 most exposed of 9 clients are listed" in " ".join(page.split())
    silent = replace(data.curves[0].gap, clients=np.minimum(data.curves[0].gap.clients, 1) - 1)
    few = replace(data.curves[0], gap=silent)  # an attack that answered on one client of nine
    monkeypatch.setattr(data, "leaders", lambda _: [few])
    assert [(table.of, len(table.rows)) for table in exposed(data)] == [(1, 1)]


@pytest.mark.slow
def test_eighteen_attacks_on_a_hundred_clients_in_500_rounds_fit(recordings, tmp_path):
    run = recordings.copy(small_config(), tmp_path / "run")
    made(run, 18, 500, 100)
    page = api.report([run.path]).read_text()
    assert beyond_pictures(page) < 400_000
    assert '"map":null' not in page


def test_a_small_page_is_small(recordings):
    page = recordings.of(small_config()).report.read_text()
    assert beyond_pictures(page) < 120_000
