import pytest

from defenses.promise import gaussian_epsilon
from fedsim import api
from fedsim.core.errors import BadRecording, ConfigError, RunStopped
from fedsim.report.run import write_report
from fedsim.run.run_folder import RunFolder
from tests.builders import assert_same_outcome, outcome, rows_without_seconds, small_config

pytestmark = pytest.mark.usefixtures("undrawn")

RAY = {"name": "ray", "workers": 2, "attackers": 1}
STATEFUL = ({"name": "tests.builders:sticky"}, {"name": "gaussian", "std": 0.001})


@pytest.mark.twin
@pytest.mark.xdist_group("processes")
def test_ray_gives_the_same_bits_as_inline(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ".")  # for the workers: the defense lives in the tests
    tables = {
        "federation": {"strategy": "fedadam", "per_round": 3, "clients": 5, "rounds": 3},
        "defense": list(STATEFUL),
    }
    inline = api.run(small_config(**tables), tmp_path / "inline")
    ray = api.run(small_config(**tables, engine=RAY), tmp_path / "ray")
    assert_same_outcome(inline.path, ray.path)
    assert len(outcome(ray.path)[1]) == 3 * 3 * (2 + 2) * 5  # with and without knowing the defense


@pytest.mark.twin
@pytest.mark.parametrize(
    "strategy",
    [
        "fedadam",
        pytest.param("fedavgm", marks=pytest.mark.slow),
        pytest.param("fedsgd", marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_after_any_round_ends_with_the_same_bits(tmp_path, strategy):
    options = {"server_momentum": 0.9} if strategy == "fedavgm" else {}
    federation = {"strategy": strategy, "per_round": 2, "rounds": 4, "options": options}
    config = small_config(federation=federation, defense=list(STATEFUL))
    straight = api.run(config, tmp_path / "straight")
    for stop in (0, 1, 3):

        def interrupt(told, stop=stop):
            if told.number == stop:
                raise KeyboardInterrupt

        path = tmp_path / f"stopped{stop}"
        with pytest.raises(KeyboardInterrupt):
            api.run(config, path, on_round=interrupt)
        assert api.Run(path).metrics().num_rows > 0
        assert_same_outcome(straight.path, api.resume(path).path)


def test_a_failing_client_is_a_row_and_the_run_goes_on(tmp_path):
    defense = [{"name": "tests.fedsim.federation.test_engines:first_two_fail"}]
    run = api.run(
        small_config(defense=defense, federation={"clients": 4, "rounds": 1}), tmp_path / "run"
    )
    rows = [row for row in run.metrics().to_pylist() if row["metric"] == "failed"]
    assert len(rows) == 2
    assert all(row["reason"].startswith("RuntimeError: out of luck (") for row in rows)
    assert {row["client"] for row in run.ledger().to_pylist()} == {"0", "1", "2", "3"} - {
        row["client"] for row in rows
    }


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_client_whose_process_dies_is_a_row_and_the_others_are_as_without_ray(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.setenv("FEDSIM_TEST_ONCE", str(tmp_path / "once"))
    tables = {
        "federation": {"rounds": 2, "clients": 5},
        "defense": [{"name": "tests.fedsim.federation.test_engines:one_dies"}],
        "auxiliary": {"knows_defense": False},
    }
    engine = {"name": "ray", "workers": 2}
    run = api.run(small_config(**tables, engine=engine), tmp_path / "run")
    [row] = [row for row in run.metrics().to_pylist() if row["metric"] == "failed"]
    assert (row["round"], row["reason"]) == (1, "the client's process died (out of memory?)")
    clients = {1: {*"01234"} - {row["client"]}, 2: {*"01234"}}
    rows = run.ledger().to_pylist()
    assert {n: {r["client"] for r in rows if r["round"] == n} for n in clients} == clients


def test_when_all_clients_fail_the_run_ends_with_the_reason(tmp_path):
    config = small_config(defense=[{"name": "tests.fedsim.federation.test_engines:all_fail"}])
    with pytest.raises(
        RunStopped,
        match="round 1: a client must succeed, got 4 failures; client .: RuntimeError: out of luck",
    ):
        api.run(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_diverging_run_is_refused_client_by_client(tmp_path):
    config = small_config(local={"lr": 1e30, "epochs": 3})
    with pytest.raises(RunStopped, match="must be finite, got NaN or infinity"):
        api.run(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("bulyan", {"num_malicious_nodes": 1}),
        ("krum", {"num_malicious_nodes": 20}),
        ("multikrum", {"num_malicious_nodes": -1}),
        ("krum", {"num_malicious_nodes": 0.5}),
        ("fedtrimmedavg", {"beta": 0.6}),
    ],
)
def test_a_strategy_that_cannot_aggregate_is_told_before_anything_is_written(
    tmp_path, strategy, options
):
    config = small_config(federation={"strategy": strategy, "options": options})
    with pytest.raises(ConfigError, match="federation"):
        api.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(tmp_path, monkeypatch):
    import errno

    from strategies import Tape

    write = Tape.write_upload

    def full(self, round_, client, *rest, **more):
        if round_ == 2 and client == "2":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, round_, client, *rest, **more)

    monkeypatch.setattr(Tape, "write_upload", full)
    with pytest.raises(RunStopped, match="the disk is full; finished rounds are kept"):
        api.run(small_config(), tmp_path / "run")
    assert set(api.Run(tmp_path / "run").ledger()["round"].to_pylist()) == {1}
    monkeypatch.undo()
    straight = api.run(small_config(), tmp_path / "straight")
    assert_same_outcome(straight.path, api.resume(tmp_path / "run").path)


def test_a_recording_attacked_later_gives_the_same_rows(tmp_path):
    from fedsim.config import Part

    run = api.run(small_config(), tmp_path / "run")
    before = rows_without_seconds(run.ledger())
    rounds = []
    api.attack(
        run.path,
        [Part(name="llg"), Part(name="idlg")],
        on_round=lambda n, total: rounds.append((n, total)),
    )
    assert rows_without_seconds(run.ledger()) == before
    assert rounds == [(1, 3), (2, 3), (3, 3)]


def test_without_truth_attacks_answer_and_values_are_null(tmp_path):
    import shutil

    from fedsim.config import Part

    run = api.run(small_config(attack="idlg"), tmp_path / "run")
    [lost] = (run.path / "truth" / "0002").iterdir()
    lost.rename(tmp_path / "lost")
    with pytest.raises(BadRecording, match=r"truth/0002"):  # of one round: lost, not kept back
        api.attack(run.path, [Part(name="llg")])
    shutil.rmtree(run.path / "truth")
    rows = api.attack(run.path, [Part(name="llg")]).to_pylist()
    assert rows
    assert {row["value"] for row in rows} == {None}
    answers = RunFolder(run.path).guesses(1)
    assert {name for name in answers if name.startswith("llg/")} == {f"llg/{i}" for i in range(4)}
    write_report([RunFolder(run.path)], tmp_path / "report.html")


def test_only_what_is_selected_is_recorded_and_attacked(tmp_path):
    config = small_config(record={"every": 2, "clients": ["1", "3"]})
    rows = api.run(config, tmp_path / "run").ledger().to_pylist()
    assert {(row["round"], row["client"]) for row in rows} == {
        (1, "1"),
        (1, "3"),
        (3, "1"),
        (3, "3"),
    }


@pytest.mark.parametrize("data", ["digits", "adult-like"])
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedsgd", "krum"])
def test_every_way_of_training_runs(tmp_path, data, strategy):
    tables = {"federation": {"strategy": strategy, "rounds": 2}}
    if data == "adult-like":
        tables["data"] = {"name": "tests.builders:toy_dataset", "limit": 60}
    if strategy == "fedprox":
        tables["federation"]["options"] = {"proximal_mu": 0.1}
    run = api.run(small_config(**tables), tmp_path / "run")
    assert {row["value"] is None for row in run.ledger().to_pylist()} == {False}


def _fail(condition):
    from defenses import Defense

    def apply(params, state, generator):
        if condition(generator):
            raise RuntimeError("out of luck")
        return dict(params), state

    return Defense(name="failing", apply=apply)


def one_dies():
    import os
    import signal

    def die(generator):
        try:
            os.close(os.open(os.environ["FEDSIM_TEST_ONCE"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        os.kill(os.getpid(), signal.SIGKILL)

    return _fail(die)


def first_two_fail():
    count = iter(range(100))
    return _fail(lambda generator: next(count) < 2)


def all_fail():
    return _fail(lambda generator: True)


def test_a_recording_without_state_is_not_taken_for_a_killed_run(tmp_path):
    import shutil

    run = api.run(small_config(), tmp_path / "run")
    shutil.rmtree(run.path / "state")
    with pytest.raises(BadRecording, match="must hold state/ to go on from"):
        api.resume(run.path)
    assert len(list((run.path / "rounds").iterdir())) == 3


def test_a_folder_in_use_is_left_alone(tmp_path):
    run = api.run(small_config(), tmp_path / "run")
    with RunFolder(run.path).locked(), pytest.raises(RunStopped, match="another process runs it"):
        api.resume(run.path)


def test_a_recording_of_another_model_is_named(tmp_path):
    from fedsim.config import Part
    from tests.recordings import forge_config

    run = api.run(small_config(), tmp_path / "run")
    other = small_config(model={"hidden": 17})
    forge_config(run.path, other)
    with pytest.raises(
        BadRecording, match=r"must be of the config's model, round 1: 1\.weight: shape"
    ):
        api.attack(run.path, [Part(name="llg")])


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_slow_client_is_left_out_on_ray(tmp_path, monkeypatch, patience):
    monkeypatch.setenv("PYTHONPATH", ".")
    config = small_config(
        federation={"timeout": patience(10.0), "rounds": 1},
        defense=[{"name": "tests.fedsim.federation.test_engines:first_is_slow"}],
        engine={"name": "ray", "workers": 1},
        auxiliary={"knows_defense": False},  # who rehearsed it would wait too
    )
    run = api.run(config, tmp_path / "run")
    failed = [row for row in run.metrics().to_pylist() if row["metric"] == "failed"]
    assert {row["reason"] for row in failed} == {"no reply in time"}


def first_is_slow():
    import time

    count = iter(range(100))

    def slow(generator):
        if next(count) == 1:
            time.sleep(600)
        return False

    return _fail(slow)


def test_a_run_says_what_its_defenses_cost_and_promise(tmp_path):
    config = small_config(
        federation={"per_round": 2, "rounds": 5, "evaluate_every": 2},
        defense=[{"name": "clip", "bound": 0.5}, {"name": "gaussian", "std": 0.01}],
    )
    rows = api.run(config, tmp_path / "run").metrics().to_pylist()
    told = {name: [row for row in rows if row["metric"] == name] for name in (
        "update_cosine", "update_snr_db", "upload_bytes", "epsilon",
    )}  # fmt: skip
    epsilons = told.pop("epsilon")
    assert all(len(found) == 5 * 2 for found in told.values())
    assert all(0.5 < row["value"] < 1 for row in told["update_cosine"])
    assert {row["round"] for row in epsilons} == {2, 4, 5}  # evaluated, or the last
    trained = [(row["round"], row["client"]) for row in told["upload_bytes"]]
    for row in epsilons:
        rounds = sum(who == row["client"] and when <= row["round"] for when, who in trained)
        expected = gaussian_epsilon(2 * 0.5 / 0.01 * rounds**0.5, 1e-5)
        assert row["value"] == pytest.approx(expected)
    last = {row["client"] for row in epsilons if row["round"] == 5}
    assert last == {who for _, who in trained}  # also who has not trained in that round
