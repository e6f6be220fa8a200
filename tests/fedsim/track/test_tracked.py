"""A tracked run: every point once, whatever becomes of a tracker; read back by its own reader."""

# The package is an extra.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
import json
import struct
import sys
from dataclasses import replace

import pytest

from fedsim import api
from fedsim.config.outside import names_outside
from fedsim.core.errors import BadRecording, ConfigError, RunStopped
from fedsim.core.rows import Leak, Measure
from fedsim.run.ledger import leakage_table, metrics_table
from fedsim.run.run_folder import RunFolder
from fedsim.track import process
from fedsim.track.values import _leakage, _measures, values_of
from tests.builders import rows_without_seconds, small_config

ROUNDS = 3
STEPS = list(range(ROUNDS + 1))


def config(*to, **options):
    return small_config(data={"limit": 120}, track={"to": list(to), **options})


def stopped_and_resumed(path, setting):
    """Run until round 1 fails, forget that it was written, and go on."""

    def stop(done):
        if done.number == 1:
            raise RunStopped("enough")

    with pytest.raises(RunStopped):
        api.run(setting, path, on_round=stop)
    api.resume(path)
    return path


def forget(path, name):
    """Let a tracker look as if its process was killed after a round was written."""
    memory = path / "track" / f"{name}.json"
    data = json.loads(memory.read_text())
    memory.write_text(json.dumps(data | {"last": data["last"] - 1}))


@pytest.mark.e2e
def test_tensorboard_reads_every_point_once(tmp_path, undrawn):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = stopped_and_resumed(tmp_path / "run", config("tensorboard"))
    forget(path, "tensorboard")
    api.resume(path)  # nothing is left to train: the last round is given again
    events = EventAccumulator(str(path / "track" / "tensorboard"))
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    assert [it.step for it in scalars["test/accuracy"]] == STEPS
    for tag in ("llg/asr", "llg/asr.blind", "idlg/skill", "client/update_norm"):
        assert [it.step for it in scalars[tag]] == STEPS[1:]
    folder = RunFolder(path)
    for tag, points in scalars.items():
        for point in points:
            assert point.value == pytest.approx(values_of(folder, point.step)[tag], rel=1e-6)
    assert b"lr = " in events.Tensors("config")[0].tensor_proto.string_val[0]


@pytest.mark.e2e
def test_mlflow_reads_every_point_once(tmp_path, undrawn, monkeypatch):
    for module in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = stopped_and_resumed(tmp_path / "run", config("mlflow"))
    forget(path, "mlflow")
    (path / "report.html").write_text("a report")
    api.resume(path)
    [database] = tmp_path.glob("mlflow.db")
    script = f"""
import json
from mlflow import MlflowClient
client = MlflowClient("sqlite:///{database}")
[experiment] = [it for it in client.search_experiments() if it.name == "fedsim"]
[run] = client.search_runs([experiment.experiment_id])
points = {{name: [(it.step, it.value) for it in client.get_metric_history(run.info.run_id, name)]
          for name in run.data.metrics}}
files = [it.path for it in client.list_artifacts(run.info.run_id)]
print(json.dumps([run.info.status, run.data.params, points, files]))
"""
    read = process.subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    status, params, points, files = json.loads(read.stdout.splitlines()[-1])
    assert status == "FINISHED"
    assert params["federation.rounds"] == str(ROUNDS)
    assert files == ["config.toml", "report.html"]
    assert [step for step, _ in points["test/accuracy"]] == STEPS
    assert [step for step, _ in points["llg/asr.blind"]] == STEPS[1:]
    folder = RunFolder(path)
    for step, value in points["llg/asr"]:
        assert value == values_of(folder, step)["llg/asr"]


@pytest.mark.e2e
def test_wandb_keeps_every_point_once_offline(tmp_path, undrawn):
    pytest.importorskip("wandb")
    path = stopped_and_resumed(tmp_path / "run", config("wandb"))
    files = sorted(path.glob("track/wandb/offline-run-*/*.wandb"))
    rows = [row for file in files for row in history_of(file)]
    assert sorted(int(row["_step"]) for row in rows) == STEPS
    assert len({file.stem for file in files}) == 1  # one run, of two processes
    folder = RunFolder(path)
    for row in rows:
        values = values_of(folder, int(row["_step"]))
        assert {name: json.loads(row[name]) for name in values} == pytest.approx(values)


def history_of(path):
    """Yield the steps in W&B's file: protocol buffers in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (rest := 32768 - place % 32768) < 7:  # records do not begin in a block's last bytes
            place += rest
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {it.key or "/".join(it.nested_key): it.value_json for it in items}


CRASHES = "import sys; sys.stdin.readline(); raise SystemExit(3)"
HANGS = "import time; time.sleep(600)"
MUTE = "import sys, time; [None for _ in sys.stdin]; time.sleep(600)"
RAISES = """
import json, sys
sys.stdin.readline()
print("not json", flush=True)
print(json.dumps({"error": "the server is\\u001b[31m gone"}), flush=True)
"""


@pytest.mark.parametrize("child", [CRASHES, HANGS, MUTE, RAISES])
def test_a_tracker_that_fails_is_one_warning(child, tmp_path, undrawn, monkeypatch, caplog):
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", child))
    monkeypatch.setattr("fedsim.api.runs.check_installed", lambda _: None)
    run = api.run(config("tensorboard", patience=1.0), tmp_path / "run")
    plain = api.run(small_config(data={"limit": 120}), tmp_path / "plain")
    assert rows_without_seconds(run.ledger()) == rows_without_seconds(plain.ledger())
    [record] = [it for it in caplog.records if it.name == process.__name__]
    text = record.getMessage()
    assert text.startswith("tracker tensorboard: the run goes on without it, got ")
    assert "\x1b" not in text
    assert ("the server is" in text) == (child == RAISES)


def test_a_tracker_that_cannot_start_is_one_warning(tmp_path, undrawn, monkeypatch, caplog):
    monkeypatch.setattr(process, "COMMAND", (str(tmp_path / "nothing"),))
    monkeypatch.setattr("fedsim.api.runs.check_installed", lambda _: None)
    api.run(config("mlflow", "wandb"), tmp_path / "run")
    assert len(caplog.records) == 2


def test_a_run_that_fails_in_its_first_round_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", MUTE))
    monkeypatch.setattr("fedsim.api.runs.check_installed", lambda _: None)

    def stop(_):
        raise RunStopped("at once")

    with pytest.raises(RunStopped):
        api.run(config("wandb", patience=0.2), tmp_path / "run", on_round=stop)
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("fedsim.track.installed.find_spec", lambda _: None)
    for name in ("tensorboard", "mlflow", "wandb"):
        sentence = f"'{name}' needs its package, .*install fedsim\\[{name}\\]"
        with pytest.raises(ConfigError, match=sentence):
            api.run(config(name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["track", "track/tensorboard", "track/mlflow.json", "track/wandb"])
def test_no_link_is_written_through(name, recordings, tmp_path, monkeypatch):
    monkeypatch.setattr("fedsim.api.runs.check_installed", lambda _: None)
    run = recordings.copy(config("tensorboard"), tmp_path / "run").path
    (tmp_path / "target").mkdir()
    (run / name).parent.mkdir(exist_ok=True)
    if (run / name).is_dir():
        (run / name).rename(tmp_path / "moved")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path / "target")
    with pytest.raises(BadRecording, match="must be its own, without links"):
        api.resume(run)
    assert list((tmp_path / "target").iterdir()) == []


def test_a_recording_names_a_server_only_if_its_user_allows_it():
    assert list(names_outside(config("mlflow"))) == []
    server = config("mlflow", uri="databricks")
    assert ("track.uri", "databricks") in names_outside(server)
    assert ("track.online", "true") in names_outside(config("wandb", online=True))


@pytest.mark.parametrize("to", [[], ["tensorbord"], "mlflow,neptune", "wandb,wandb"])
def test_other_trackers_are_refused(to):
    with pytest.raises(ConfigError, match=r"track\.to"):
        small_config(track={"to": to})
    assert small_config(track={"to": "mlflow,wandb"}).track.to == ("mlflow", "wandb")


@pytest.mark.worked
def test_what_a_tracker_is_given():
    def leak(client, value, blind, attack="llg", adaptive=False, metric="asr"):
        outcome = "failed" if value is None else "graded"
        return Leak(
            round=1, client=client, attack=attack, family="label", metric=metric, value=value,
            blind=blind, seconds=0.0, ceiling=None, adaptive=adaptive, outcome=outcome,
        )  # fmt: skip

    rows = [
        leak("0", 0.5, 0.25), leak("1", 1.0, 0.75), leak("2", None, 0.5),
        leak(None, 0.0, 0.0),  # pooled beside single clients
        leak("0", 0.125, None, adaptive=True), leak("0", None, None, attack="idlg"),
    ]  # fmt: skip
    assert _leakage(leakage_table(rows)) == {
        "llg/asr": 0.75, "llg/asr.blind": 0.5, "llg (adaptive)/asr": 0.125,
        "llg/unanswered": 1.0, "idlg/unanswered": 1.0,
    }  # fmt: skip
    undefined = replace(leak("0", None, 0.5, attack="idlg"), outcome="undefined")
    pooled = leak(None, 0.75, 0.5, attack="idlg")
    assert _leakage(leakage_table([undefined, pooled])) == {
        "idlg/asr": 0.75, "idlg/asr.blind": 0.5,
    }  # fmt: skip
    measures = [
        Measure(1, "test", "accuracy", 0.5), Measure(1, "client", "update_norm", 1.0, "0"),
        Measure(1, "client", "update_norm", 3.0, "1"), Measure(1, "client", "failed", 1.0, "2"),
        Measure(1, "client", "failed", 1.0, "3"), Measure(1, "attack", "failed", 1.0, "0", "x"),
        Measure(1, "server", "trained_alone", 2.0, None, "a"),
        Measure(1, "server", "trained_alone", 3.0, None, "b"),
    ]  # fmt: skip
    assert _measures(metrics_table(measures)) == {
        "test/accuracy": 0.5, "client/update_norm": 2.0, "client/failed": 2.0,
        "server/trained_alone": 5.0,
    }  # fmt: skip
