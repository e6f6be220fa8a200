import math

import pytest

from fedsim import api
from tests.builders import small_config

NAMES = ("exposure", "exposure-upload", "exposure-model", "exposure-rounds")
ASKED = small_config(
    data={"name": "messages", "limit": 60, "canary": "pin ###", "partition": "iid"},
    model={"name": "gpt", "width": 32},
    federation={"rounds": 2, "clients": 3},
    local={"epochs": 3, "lr": 0.5, "batch_size": 4},
    attack=list(NAMES),
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedsim.report.run.write_report", lambda *_, **__: None)  # undrawn
        run = api.run(ASKED, tmp_path_factory.mktemp("exposure") / "run")
    return run.ledger().to_pylist()


def test_only_the_client_with_the_canary_is_graded(rows):
    assert {row["attack"] for row in rows} == set(NAMES)
    for row in rows:
        assert row["outcome"] == ("graded" if row["client"] == "0" else "undefined")
    graded = [row for row in rows if row["client"] == "0"]
    assert {row["ceiling"] for row in graded} == {9.0}
    assert len({row["blind"] for row in graded}) == 1  # the first model sent, in every round
    assert all(0 <= row["value"] <= 9 for row in graded)


def test_the_model_that_was_sent_first_tells_what_the_blind_rank_does(rows):
    first = {r["attack"]: r for r in rows if r["client"] == "0" and r["round"] == 1}
    assert first["exposure-model"]["value"] == first["exposure-model"]["blind"]
    assert first["exposure-rounds"]["value"] == first["exposure"]["value"]


def test_the_upload_against_the_model_sent_tells_the_digits(rows):
    values = [r["value"] for r in rows if r["client"] == "0" and r["attack"] == "exposure"]
    assert sum(values) / len(values) > math.log2(math.e) + 1
