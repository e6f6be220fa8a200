"""Runs on texts: every engine, resumed, attacked, and what does not go with texts."""

import math

import pytest
from typer.testing import CliRunner

from adversary.grading.truth import read_truth
from fedsim import api
from fedsim.cli.main import app
from fedsim.core.errors import ConfigError
from fedsim.data import federate, tokeniser
from fedsim.run.run_folder import RunFolder
from tests.builders import rows_without_seconds, same_params, small_config
from tests.fedsim.federation.test_batched import alone, assert_alike

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("undrawn")]

SMALL = {"width": 8, "heads": 2, "layers": 1}
GPT = {"name": "gpt", **SMALL}
TEXTS = {"name": "messages", "limit": 120, "length": 12, "vocabulary": 300}
LANGUAGE = {"data": TEXTS, "model": GPT, "federation": {"clients": 3, "rounds": 2}}
TOPICS = {
    **LANGUAGE,
    "data": {**TEXTS, "task": "label"},
    "model": {"name": "bert", **SMALL},
    "attack": ["llg"],
}


def by_metric(run, metric):
    rows = [row for row in run.metrics().to_pylist() if row["metric"] == metric]
    return {row["round"]: row["value"] for row in rows if row["split"] == "test"}


def test_a_language_model_trains_and_its_truth_is_the_target_tokens(tmp_path):
    config = small_config(**LANGUAGE, attack=["cosine-mia", "token-rows"])
    run = api.run(config, tmp_path / "run")
    loss, perplexity = by_metric(run, "loss"), by_metric(run, "perplexity")
    assert loss.keys() == perplexity.keys() == {0, 1, 2}
    assert loss[2] < loss[0] == pytest.approx(math.log(300), abs=0.1)
    assert perplexity == pytest.approx({r: math.exp(value) for r, value in loss.items()})
    assert all(row["outcome"] == "graded" for row in run.ledger().to_pylist())
    dataset = federate(config).dataset
    for client in "012":
        truth = read_truth(run.path / "truth", 1, client)
        targets = dataset.targets[truth.indices]
        assert truth.labels.tolist() == targets[targets != -100].tolist()
    kept = tokeniser.read(run.path / tokeniser.FILE)
    assert kept == federate(config).tokeniser


@pytest.mark.untyped  # batches of several sizes
@pytest.mark.parametrize("tables", [LANGUAGE, TOPICS], ids=["language", "topics"])
def test_clients_trained_together_upload_the_same_but_for_rounding(tmp_path, tables):
    tables = {**tables, "attack": ["token-rows"]}
    inline = api.run(small_config(**tables), tmp_path / "inline")
    engine = {"name": "batched", "batch": 3}
    batched = api.run(small_config(**tables, engine=engine), tmp_path / "batched")
    assert alone(batched) == []
    assert_alike(inline, batched)


def test_a_resumed_run_on_texts_ends_with_the_same_bits(tmp_path):
    config = small_config(**LANGUAGE, attack=["token-rows"])
    straight = api.run(config, tmp_path / "straight")

    class Stop(Exception):
        pass

    def stop(told):
        if told.number == 1:
            raise Stop

    with pytest.raises(Stop):
        api.run(config, tmp_path / "stopped", on_round=stop)
    resumed = api.resume(tmp_path / "stopped")
    assert same_params(*(RunFolder(it.path).final_params() for it in (straight, resumed)))
    assert rows_without_seconds(straight.ledger()) == rows_without_seconds(resumed.ledger())


def test_a_partition_by_speaker_keeps_each_speaker_with_one_client():
    data = {**TEXTS, "partition": "user", "users": "speaker"}
    federated = federate(small_config(**{**LANGUAGE, "data": data}))
    speakers = federated.dataset.columns["speaker"]
    parts = [set(speakers[rows.numpy()]) for rows in federated.clients]
    assert sum(map(len, parts)) == len(set().union(*parts)) > len(parts)


def test_a_run_that_lists_no_attack_has_those_of_its_kind(tmp_path):
    tables = {key: value for key, value in LANGUAGE.items() if key != "attack"}
    config = small_config(**tables)
    chosen = config.model_copy()
    chosen.model_fields_set.discard("attack")
    run = api.run(chosen, tmp_path / "run")
    assert {row["attack"] for row in run.ledger().to_pylist()} == {"token-rows", "row-bayes"}
    assert [part.name for part in run.config().attack] == ["token-rows", "row-bayes"]


def test_records_of_an_audited_run_are_texts(tmp_path):
    audit = {"canary": "record", "records": 8}
    defense = [{"name": "dp-sgd", "noise": 0.5}]
    tables = {**LANGUAGE, "attack": [], "defense": defense, "audit": audit}
    run = api.run(small_config(**tables), tmp_path / "run")
    assert not [row for row in run.metrics().to_pylist() if row["metric"] == "failed"]


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"attack": ["llg"]}, "attack.llg: must attack a model of numbers or texts with a class"),
        ({"attack": ["dlg"]}, "attack.dlg: must attack a model of numbers, got one of texts with"),
        ({"attack": ["r-gap"]}, "attack.r-gap: must attack a model of numbers"),
        ({"defense": ["mixup"]}, "defense.mixup: model: must be of a kind .* not numbers"),
        ({"defense": [{"name": "soteria"}]}, "defense.soteria: model: must be of a kind"),
        ({"defense": ["perturb"]}, "defense.perturb: model: must be of a kind"),
        ({"model": {"name": "bert", **SMALL}}, "at each of 12 tokens"),
        (
            {"model": {"name": "mlp"}},
            "model.name: must take token ids of texts, as gpt and bert do",
        ),
        ({"auxiliary": {"share": 0.0}}, "data.tokeniser: must be 'bytes' or a file where there"),
        ({"data": {"name": "digits"}}, "inputs: must be token ids of texts, got numbers of shape"),
    ],
)
def test_what_does_not_go_with_texts_is_refused_before_anything_is_written(
    tmp_path, tables, sentence
):
    with pytest.raises(ConfigError, match=sentence):
        api.run(small_config(**{**LANGUAGE, "attack": [], **tables}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ray_gives_the_bits_of_inline_on_texts(tmp_path):
    tables = {**LANGUAGE, "attack": ["token-rows"]}
    inline = api.run(small_config(**tables), tmp_path / "inline")
    other = api.run(small_config(**tables, engine={"name": "ray"}), tmp_path / "ray")
    assert same_params(*(RunFolder(it.path).final_params() for it in (inline, other)))
    assert rows_without_seconds(inline.ledger()) == rows_without_seconds(other.ledger())


def test_the_lines_of_a_run_show_perplexity_and_go_on_with_an_attack_on_texts(tmp_path):
    settings = [
        "data=messages",
        "data.limit=120",
        "model=gpt",
        "model.width=8",
        "federation.clients=3",
        "federation.rounds=1",
    ]
    changes = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(app, ["run", *changes, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "round  perplexity" in result.output
    assert "--with tokens-moved" in result.output
