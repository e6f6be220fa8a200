import pytest
import torch

from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.rows import Leak, Measure
from fedsim.core.seals import UNSEALED, sealed
from fedsim.run.checkpoint import Checkpoint
from fedsim.run.kept_config import write_config
from fedsim.run.run_folder import RunFolder
from tests.builders import same_params, small_config

STATE = {"w": torch.ones(3)}


def leak(round_, client="0", attack="llg", value=0.5):
    return Leak(
        round=round_,
        client=client,
        attack=attack,
        family="label",
        metric="asr",
        value=value,
        outcome="graded",
        blind=0.1,
        seconds=0.01,
    )


def folder_with(tmp_path, rounds):
    folder = RunFolder.create(tmp_path / "run", small_config())
    for number in rounds:
        checkpoint = Checkpoint(
            number, {"w": torch.full((3,), float(number))}, ({}, {"strategy": {}})
        )
        folder.commit(checkpoint, [leak(number)], [Measure(number, "test", "accuracy", 0.5)], {})
    return folder


def test_a_folder_with_something_in_it_is_not_taken(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="--out: must be a new folder, got .*; --resume"):
        RunFolder.create(tmp_path / "run", small_config())
    with pytest.raises(BadRecording, match="must be a run folder"):
        RunFolder(tmp_path / "nothing")


def test_the_config_is_kept(tmp_path):
    assert folder_with(tmp_path, []).config == small_config()
    path = tmp_path / "run" / "config.toml"
    for text in ("seed = -1", path.read_text().replace("seed = 0", "seed = 1"), ""):
        path.write_text(text)
        with pytest.raises(BadRecording, match="must be as it was written, by its checksum"):
            RunFolder(tmp_path / "run").config  # noqa: B018
    path.write_bytes(sealed(f"# {UNSEALED}\nseed = -1".encode()))
    with pytest.raises(BadRecording, match="seed: .*got -1"):
        RunFolder(tmp_path / "run").config  # noqa: B018


@pytest.mark.parametrize("name", ["leakage.parquet", "metrics.parquet"])
def test_a_table_that_was_written_and_is_lost_is_refused(name, tmp_path):
    folder = folder_with(tmp_path, [0, 1])
    assert folder.ledger().num_rows == 2  # of a run that was killed: no table was ever written
    folder.replace_attacks({"dlg"}, [leak(1, attack="dlg")])
    assert folder.ledger().num_rows == 3
    (folder.path / name).unlink()
    for use in (folder.check_files, folder.restore, folder.write_tables):
        with pytest.raises(BadRecording, match=f"{name}: must not be lost.*delete .tables"):
            use()
    (folder.path / ".tables").unlink()
    assert folder.ledger().num_rows == (2 if name.startswith("leakage") else 3)


@pytest.mark.parametrize("name", ["leakage.parquet", "metrics.parquet"])
def test_a_table_of_another_run_is_refused(name, tmp_path):
    folder, other = folder_with(tmp_path / "a", [0, 1]), folder_with(tmp_path / "b", [0, 1])
    write_config(other.path, small_config(seed=7))
    for each in (folder, other):
        RunFolder(each.path).write_tables()
    assert folder.metrics().num_rows == folder.ledger().num_rows == 2
    (folder.path / name).write_bytes((other.path / name).read_bytes())
    for use in (folder.check_files, folder.write_tables):
        with pytest.raises(BadRecording, match=f"{name}: must be of this run's config, got that"):
            use()


def test_it_goes_on_after_the_last_finished_round_and_forgets_the_unfinished_one(tmp_path):
    folder = folder_with(tmp_path, [0, 1, 2])
    for name in ("rounds/0003", "truth/0003", "state/.0003.part"):
        (folder.path / name).mkdir(parents=True)
    start = RunFolder(folder.path).restore()
    assert start is not None
    assert start.round == 2
    assert same_params(start.params, {"w": torch.full((3,), 2.0)})
    assert not (folder.path / "rounds" / "0003").exists()
    assert not (folder.path / "truth" / "0003").exists()


def test_what_a_killed_commit_left_is_removed(tmp_path):
    folder = folder_with(tmp_path, [0, 1, 2])
    whole = sorted(folder.path.rglob("*"))
    for name in (
        "state/.0003.part/leakage.parquet",
        "guesses/.0003.safetensors.77.part",
        "guesses/0003.safetensors",
        "truth/0002/.clients.safetensors.78.part",
        "rounds/0002/.uploads.safetensors.79.part",
        "state/0001/params.safetensors",  # killed between its rename and forgetting the older
        ".leakage.parquet.80.part",
    ):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).touch()
    other = folder.path / "other" / "state" / ".0001.part"
    other.parent.mkdir(parents=True)
    other.touch()  # of a run in this run's folder, which nobody asked to go on
    folder.restore()
    left = [path for path in sorted(folder.path.rglob("*")) if path.is_file()]
    assert left == sorted([other, *(path for path in whole if path.is_file())])


def test_a_run_killed_before_its_first_commit_starts_anew(tmp_path):
    folder = folder_with(tmp_path, [])
    (folder.path / "rounds" / "0001").mkdir(parents=True)
    assert folder.restore() is None
    assert not (folder.path / "rounds" / "0001").exists()


def test_the_newest_state_of_every_client_is_restored(tmp_path):
    folder = RunFolder.create(tmp_path / "run", small_config())
    for number, clients in enumerate([{"0": 0.0, "1": 0.0}, {"0": 1.0}, {"1": 2.0}]):
        states = {name: {"m": torch.tensor(value)} for name, value in clients.items()}
        folder.commit(Checkpoint(number, STATE, ({}, {"strategy": {}}), states), [], [], {})
    start = folder.restore()
    assert start is not None
    assert {name: float(state["m"]) for name, state in start.clients.items()} == {
        "0": 1.0,
        "1": 2.0,
    }
    kept = list((folder.path / "state").glob("*/clients/*"))
    assert len(kept) == 2


def test_tables_are_whole_while_running_after_the_end_and_after_going_on(tmp_path):
    folder = folder_with(tmp_path, [0, 1])
    assert folder.ledger().num_rows == 2
    folder.write_tables()
    assert folder.ledger().num_rows == folder.metrics().num_rows == 2
    folder.commit(
        Checkpoint(2, STATE, ({}, {"strategy": {}})),
        [leak(2)],
        [Measure(2, "test", "loss", 1.0)],
        {},
    )
    assert folder.ledger()["round"].to_pylist() == [0, 1, 2]  # the written table is behind
    assert folder.metrics().num_rows == 3


def test_a_new_attack_replaces_its_own_rows_and_survives_the_end_of_the_run(tmp_path):
    folder = folder_with(tmp_path, [1])
    folder.write_tables()
    folder.replace_attacks({"later"}, [leak(1, attack="later", value=0.1)])
    folder.replace_attacks({"later"}, [leak(1, attack="later", value=0.2)])
    rows = {(row["attack"], row["value"]) for row in folder.ledger().to_pylist()}
    assert rows == {("llg", 0.5), ("later", 0.2)}
    folder.write_tables()
    assert {row["attack"] for row in folder.ledger().to_pylist()} == {"llg", "later"}


def test_rows_stand_in_the_order_of_rounds_and_client_numbers(tmp_path):
    folder = folder_with(tmp_path, [])
    rows = [leak(2, "10"), leak(1, "10"), leak(1, "9"), leak(2, "9", attack="idlg")]
    folder.replace_attacks(set(), rows)
    order = [(row["round"], row["client"]) for row in folder.ledger().to_pylist()]
    assert order == [(1, "9"), (1, "10"), (2, "9"), (2, "10")]


def test_guesses_are_added_to(tmp_path):
    folder = folder_with(tmp_path, [])
    folder.write_guesses(1, {"llg/0": torch.ones(3)})
    folder.write_guesses(1, {"idlg/0": torch.zeros(3)})
    assert set(folder.guesses(1)) == {"llg/0", "idlg/0"}


def test_a_table_that_is_current_is_read_without_the_parts_of_its_rounds(tmp_path, monkeypatch):
    folder = folder_with(tmp_path, range(4))
    folder.write_tables()
    with monkeypatch.context() as change:
        change.setattr("fedsim.run.tables.Tables._parts", None)
        assert folder.ledger()["round"].to_pylist() == [0, 1, 2, 3]
        assert folder.metrics().num_rows == 4
    checkpoint = Checkpoint(4, {"w": torch.ones(3)}, ({}, {"strategy": {}}))
    folder.commit(checkpoint, [leak(4)], [], {})
    assert folder.ledger()["round"].to_pylist() == [0, 1, 2, 3, 4]


def test_only_the_newest_memory_of_each_client_is_kept_also_by_another_process(tmp_path):
    folder = RunFolder.create(tmp_path / "run", small_config())
    for number, clients in enumerate([(), ("0", "1"), ("1",), ("0", "2"), ("2",)]):
        if number == 3:
            folder = RunFolder(folder.path)
        states = {client: {"memory": torch.full((1,), float(number))} for client in clients}
        checkpoint = Checkpoint(number, {"w": torch.ones(3)}, ({}, {"strategy": {}}), states)
        folder.commit(checkpoint, [], [], {})
    kept = sorted(
        path.relative_to(folder.path).as_posix() for path in folder.path.rglob("clients/*")
    )
    assert kept == [
        "state/0002/clients/1.safetensors",
        "state/0003/clients/0.safetensors",
        "state/0004/clients/2.safetensors",
    ]
    assert [path.parent.name for path in folder.path.rglob("params.safetensors")] == ["0004"]
    assert {k: float(v["memory"]) for k, v in folder.restore().clients.items()} == {
        "0": 3.0, "1": 2.0, "2": 4.0
    }  # fmt: skip
