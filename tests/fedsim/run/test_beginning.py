import pytest

from fedsim.core.errors import ConfigError
from fedsim.run.beginning import beginning
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config

CONFIG = small_config()


class Failed(Exception):
    pass


def begin_and_fail(path, rounds):
    with beginning() as create:
        folder = create(path, CONFIG)
        for name in ("rounds/0001/sent.safetensors", "truth/0001/0.safetensors", ".lock"):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).touch()
        for round_ in range(rounds + 1):
            (path / "state" / f"{round_:04d}").mkdir(parents=True)
        assert folder.finished_rounds == [*range(rounds + 1)]
        raise Failed


def fail_after(path, *, rounds=0):
    with pytest.raises(Failed):
        begin_and_fail(path, rounds)


def test_a_run_that_fails_in_its_first_round_leaves_no_folder(tmp_path):
    for _ in range(2):  # the same command works again
        fail_after(tmp_path / "runs" / "digits")
        assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / "runs" / "other").mkdir(parents=True)
    (tmp_path / "runs" / "mine").mkdir()
    (tmp_path / "runs" / "mine" / ".gitkeep").touch()
    fail_after(tmp_path / "runs" / "mine")
    fail_after(tmp_path / "runs" / "next")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["runs", "runs/mine", "runs/mine/.gitkeep", "runs/other"]


def test_a_run_that_fails_later_stays(tmp_path):
    fail_after(tmp_path / "run", rounds=1)
    assert RunFolder(tmp_path / "run").finished_rounds == [0, 1]


def test_a_folder_that_is_taken_is_left_alone(tmp_path):
    (tmp_path / "rounds").mkdir()
    with pytest.raises(ConfigError, match="--out: must be a new folder"), beginning() as create:
        create(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["rounds"]
