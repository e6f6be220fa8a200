from math import prod

import pytest
import torch
from typer.testing import CliRunner

from fedsim import api
from fedsim.cli.main import app
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.params import norm, subtract
from fedsim.run.run_folder import RunFolder
from tests.builders import rows_without_seconds, same_params, small_config
from tests.recordings import forge_config

pytestmark = pytest.mark.usefixtures("undrawn")

BATCHED = {"name": "batched", "batch": 3}


def alone(run):
    """Return how many clients trained one by one in each round, with the reason."""
    rows = [row for row in run.metrics().to_pylist() if row["metric"] == "trained_alone"]
    return [(row["round"], row["value"], row["reason"]) for row in rows]


def uploads(run):
    """Return every recorded upload, by round and client."""
    from fedsim.core.groups import groups_in

    files = sorted((run.path / "rounds").glob("*/uploads.safetensors"))
    groups = {path.parent.name: groups_in(path) for path in files}
    return {(r, client): dict(it[client]) for r, it in groups.items() for client in it}


def assert_alike(one, other):
    left, right = uploads(one), uploads(other)
    assert left.keys() == right.keys() != set()
    for key in left:
        assert norm(subtract(left[key], right[key])) <= 1e-5 * norm(right[key])


@pytest.mark.twin
@pytest.mark.parametrize(
    "tables",
    [
        {"federation": {"clients": 5, "rounds": 2}},
        {
            "federation": {
                "clients": 5,
                "rounds": 2,
                "strategy": "fedprox",
                "options": {"proximal_mu": 0.3},
            },
            "local": {"momentum": 0.5, "epochs": 2, "batch_size": 5},
            "defense": [{"name": "clip", "bound": 0.5}, {"name": "gaussian", "std": 0.001}],
        },
        {
            "federation": {"clients": 4, "rounds": 1},
            "model": "tests.fedsim.federation.test_batched:Scaled",
        },
        {"federation": {"clients": 5, "rounds": 2, "strategy": "fedsgd"}, "model": "cnn"},
    ],
    ids=["dirichlet", "prox-momentum-noise", "scaled", "fedsgd-cnn"],
)
def test_a_run_is_as_inline_but_for_rounding(tmp_path, tables):
    inline = api.run(small_config(**tables), tmp_path / "inline")
    batched = api.run(small_config(**tables, engine=BATCHED), tmp_path / "batched")
    assert alone(batched) == []
    assert_alike(inline, batched)
    left, right = (rows_without_seconds(run.ledger()) for run in (inline, batched))
    assert [row["outcome"] for row in left] == [row["outcome"] for row in right]
    for one, other in zip(left, right, strict=True):
        assert one["value"] == pytest.approx(other["value"], abs=1e-6)
        assert {**one, "value": 0} == pytest.approx({**other, "value": 0}, abs=1e-6, nan_ok=True)


@pytest.mark.twin
def test_clients_of_adamw_train_together_and_are_read_as_they_say(tmp_path):
    tables = {"federation": {"clients": 4, "rounds": 1}}
    tables |= {"local": {"optimizer": "adamw", "lr": 0.01, "epochs": 3}}
    inline = api.run(small_config(**tables), tmp_path / "inline")
    batched = api.run(small_config(**tables, engine=BATCHED), tmp_path / "batched")
    assert alone(batched) == []
    left, right = uploads(inline), uploads(batched)
    for key in left:  # a sign of a tiny gradient may turn by rounding
        assert norm(subtract(left[key], right[key])) <= 1e-2 * norm(right[key])
    rows = [row for row in inline.metrics().to_pylist() if row["metric"] == "loss"]
    assert rows[-1]["value"] < rows[0]["value"]


def test_rehearsed_clients_that_cannot_train_together_are_counted(tmp_path):
    tables = {"federation": {"clients": 3, "rounds": 1}, "auxiliary": {"share": 0.3}}
    tables |= {"attack": "update-lira", "engine": BATCHED}

    def counts(name, **more):
        metrics = api.run(small_config(**tables, **more), tmp_path / name).metrics().to_pylist()
        return [row["value"] for row in metrics if row["metric"] == "rehearsed_alone"]

    assert counts("together") == []
    (count,) = counts("alone", model="tests.fedsim.federation.test_batched:normed")
    assert count > 0


class Scaled(torch.nn.Linear):
    """A linear model whose logits are multiplied by a parameter without an axis."""

    def __init__(self, input_shape, num_classes):
        super().__init__(prod(input_shape), num_classes)
        self.scale = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, input):
        return super().forward(input.flatten(1)) * self.scale


def normed(input_shape, num_classes):
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, num_classes)
    )


def test_what_cannot_train_together_is_as_inline_and_counted(tmp_path):
    tables = {
        "model": "tests.fedsim.federation.test_batched:normed",
        "data": {"partition": "iid", "limit": 160},
        "federation": {"rounds": 2},
    }
    inline = api.run(small_config(**tables), tmp_path / "inline")
    batched = api.run(small_config(**tables, engine=BATCHED), tmp_path / "batched")
    reason = "1.running_mean moves while the model trains"
    assert alone(batched) == [(1, 4.0, reason), (2, 4.0, reason)]
    assert alone(inline) == []
    assert rows_without_seconds(inline.ledger()) == rows_without_seconds(batched.ledger())
    assert same_params(*(RunFolder(run.path).final_params() for run in (inline, batched)))


def test_a_client_that_fails_is_a_row_and_the_others_train_together(tmp_path):
    tables = {
        "defense": [{"name": "tests.fedsim.federation.test_engines:first_two_fail"}],
        "federation": {"clients": 5, "rounds": 1},
        "engine": BATCHED,
    }
    run = api.run(small_config(**tables), tmp_path / "run")
    failed = [row for row in run.metrics().to_pylist() if row["metric"] == "failed"]
    assert len(failed) == 2
    assert all(row["reason"].startswith("RuntimeError: out of luck (") for row in failed)
    assert alone(run) == []


@pytest.mark.twin
def test_a_stopped_run_ends_with_the_same_bits(tmp_path):
    tables = {
        "federation": {"strategy": "fedadam", "per_round": 5, "clients": 6},
        "defense": [{"name": "tests.builders:sticky"}],
        "auxiliary": {"knows_defense": False},
        "engine": BATCHED,
    }
    straight = api.run(small_config(**tables), tmp_path / "straight")

    def interrupt(told):
        if told.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.run(small_config(**tables), tmp_path / "stopped", on_round=interrupt)
    resumed = api.resume(tmp_path / "stopped")
    assert same_params(*(RunFolder(run.path).final_params() for run in (straight, resumed)))
    assert rows_without_seconds(straight.ledger()) == rows_without_seconds(resumed.ledger())


@pytest.mark.parametrize(
    ("first", "then", "sentence"),
    [
        ({"name": "inline"}, BATCHED, "'inline' or 'ray', got 'batched' with batch = 3"),
        (BATCHED, {"name": "ray"}, "'batched' with batch = 3, got 'inline' or 'ray'"),
        (BATCHED, {"name": "batched"}, "'batched' with batch = 3, got 'batched' with batch = 64"),
    ],
)
def test_no_run_goes_on_with_other_bits(tmp_path, first, then, sentence):
    federation = {"rounds": 1}
    run = api.run(small_config(engine=first, federation=federation), tmp_path / "run")
    forge_config(run.path, small_config(engine=then, federation={"rounds": 2}))
    with pytest.raises(BadRecording, match=f"the engine of its finished rounds, {sentence}"):
        RunFolder(run.path).restore()


def test_the_command_line_refuses_another_engine_for_a_run_that_goes_on(tmp_path):
    result = CliRunner().invoke(
        app, ["run", "--resume", "--engine", "batched", "--out", str(tmp_path)]
    )
    assert "--resume: uses the run's own config" in str(result.exception)


def test_the_number_that_trains_together_stands_in_the_config(tmp_path):
    assert small_config(engine={"name": "batched"}).engine.batch == 64
    assert small_config().engine.batch is None
    for engine in ({"name": "inline", "batch": 2}, {"batch": 2}):
        with pytest.raises(ConfigError, match="engine.batch: must be a number with"):
            small_config(engine=engine)


def test_flowers_own_nodes_do_not_train_together():
    from fedsim.federation.server_app import _opened

    settings = {"out": "/tmp/never", "set": "engine.name=batched"}
    with pytest.raises(ConfigError, match="must be 'inline' or 'ray' where Flower runs"):
        _opened(settings)


def test_the_command_line_says_once_why_clients_trained_one_by_one(tmp_path):
    model = "model=tests.fedsim.federation.test_batched:normed"
    tables = (model, "engine.name=batched", "attack=llg", "data.limit=160", "data.partition=iid")
    federation = ("federation.clients=4", "federation.rounds=2")
    settings = [part for text in (*tables, *federation) for part in ("--set", text)]
    result = CliRunner().invoke(app, ["run", *settings, "--out", str(tmp_path / "run")])
    line = "4 clients trained one by one: 1.running_mean moves while the model trains"
    assert " ".join(result.output.split()).count(line) == 1


@pytest.mark.twin
@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_clients_that_train_together_on_ray_have_the_bits_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ".")  # for the workers: the defense lives in the tests
    tables = {
        "federation": {"strategy": "fedadam", "per_round": 7, "clients": 8, "rounds": 2},
        "defense": [{"name": "tests.builders:sticky"}],
        "auxiliary": {"knows_defense": False},
    }
    batched = api.run(small_config(**tables, engine=BATCHED), tmp_path / "batched")

    def interrupt(done):
        if done.number == 1:
            raise KeyboardInterrupt

    engine = {"name": "ray", "workers": 2, "batch": 3}  # 7 clients: the last is one by itself
    config = small_config(**tables, engine=engine)
    with pytest.raises(KeyboardInterrupt):
        api.run(config, tmp_path / "ray", on_round=interrupt)
    ray = api.resume(tmp_path / "ray")
    assert alone(ray) == alone(batched) == []
    assert same_params(*(RunFolder(run.path).final_params() for run in (batched, ray)))
    assert rows_without_seconds(batched.ledger()) == rows_without_seconds(ray.ledger())


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_process_that_dies_once_costs_its_batch_no_upload(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.setenv("FEDSIM_TEST_ONCE", str(tmp_path / "once"))
    tables = {
        "federation": {"rounds": 1, "clients": 5},
        "defense": [{"name": "tests.fedsim.federation.test_engines:one_dies"}],
        "auxiliary": {"knows_defense": False},
    }
    engine = {"name": "ray", "workers": 2, "batch": 3}
    run = api.run(small_config(**tables, engine=engine), tmp_path / "run")
    assert [row for row in run.metrics().to_pylist() if row["metric"] == "failed"] == []
    [(_, count, reason)] = alone(run)
    assert count in {2, 3}
    assert reason == "in a batch of clients the client's process died (out of memory?)"


def test_ray_takes_clients_one_by_one_without_a_batch_or_with_one():
    for engine in ({"name": "ray"}, {"name": "ray", "batch": 1}, {"name": "inline"}):
        assert not small_config(engine=engine).engine.arithmetic
    ray = small_config(engine={"name": "ray", "batch": 3}).engine
    assert ray.arithmetic == small_config(engine=BATCHED).engine.arithmetic
    with pytest.raises(ConfigError, match="is none with 'inline', got 3 with 'inline'"):
        small_config(engine={"name": "inline", "batch": 3})
