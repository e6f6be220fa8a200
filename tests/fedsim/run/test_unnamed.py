"""Attacks on rounds without names, in whole runs."""

import pytest

from fedsim import api
from fedsim.config import Part, parse
from fedsim.core.errors import ConfigError
from fedsim.run.prepare import prepare
from fedsim.run.run_folder import RunFolder
from tests.builders import rows_without_seconds, small_config

NAMES = ["linkage-cosine", "linkage-whitened-rounds", "linkage-labels", "linkage-examples"]
CONFIG = small_config(
    attack=[{"name": name} for name in [*NAMES, "llg"]],
    defense=[{"name": "clip"}], auxiliary={"share": 0.3},
    model={"name": "mlp", "hidden": 4},
)  # fmt: skip


def asked(**options):
    return [{"name": "linkage-cosine", **options}]


def rows_of(run):
    return [row for row in rows_without_seconds(run.ledger()) if row["family"] == "linkage"]


@pytest.mark.e2e
def test_there_is_a_row_for_a_round_that_has_one_before_it(recordings):
    rows = rows_of(recordings.of(CONFIG))
    assert {row["client"] for row in rows} == {None}
    assert {row["round"] for row in rows} == {2, 3}
    assert {row["outcome"] for row in rows} == {"graded"}
    assert {row["blind"] for row in rows if row["metric"] == "auroc"} == {0.5}
    titles = {(row["attack"], row["adaptive"]) for row in rows}
    assert titles == {*((name, False) for name in NAMES), ("linkage-labels", True)}
    assert len(rows) == 2 * 3 * len(titles)


def test_guesses_are_kept_and_the_report_shows_them(recordings):
    run = recordings.of(CONFIG)
    assert RunFolder(run.path).guesses(2)["linkage-cosine/unnamed"].shape == (5, 8)
    page = run.report.read_text()
    for name in NAMES:
        assert name in page


def test_a_round_attacked_by_itself_gets_the_same_answer(recordings, tmp_path):
    run = recordings.copy(CONFIG, tmp_path / "run")
    before = [row for row in rows_of(run) if row["attack"] == "linkage-cosine"]
    parts = [Part.model_validate(part) for part in asked(every=2)]
    again = rows_without_seconds(api.attack(run.path, parts))
    in_order = lambda rows: sorted(rows, key=lambda row: row["metric"])
    assert in_order(again) == in_order([row for row in before if row["round"] == 3])


@pytest.mark.parametrize(
    ("section", "attack", "reason"),
    [
        ({"federation": {"rounds": 1}}, {}, "must be run on a round that has a recorded one"),
        ({"record": {"every": 3}}, {}, "must be run on a round that has a recorded one before it"),
        ({}, {"every": 3}, "and every 3 attacked"),
        ({}, {"clients": [1]}, "clients: must be left out by an attack on clients without names"),
    ],
)
def test_where_there_are_no_two_rounds_the_plan_is_refused(section, attack, reason):
    config = small_config(**section, attack=asked(**attack))
    with pytest.raises(ConfigError, match=reason):
        prepare(config)


def test_sums_of_clients_have_nobody_to_link(tmp_path):
    federation = {"rounds": 2, "secure_aggregation": True}
    config = small_config(federation=federation, attack=asked())
    ledger = api.run(config, tmp_path / "run").ledger().to_pylist()
    rows = [row for row in ledger if row["family"] == "linkage"]
    assert {row["outcome"] for row in rows} == {"refused"}
    assert "num_clients: must be 1 to tell whose upload it is" in rows[0]["reason"]


def test_a_client_that_is_sampled_now_and_then_is_linked_too(tmp_path):
    config = parse({
        "federation": {"rounds": 4, "clients": 6, "per_round": 3},
        "data": {"limit": 240, "partition": "dirichlet", "alpha": 0.1},
        "model": {"name": "mlp", "hidden": 16}, "local": {"epochs": 1},
        "attack": asked(),
    })  # fmt: skip
    rows = api.run(config, tmp_path / "run").ledger().to_pylist()
    assert {row["outcome"] for row in rows} <= {"graded", "undefined"}
