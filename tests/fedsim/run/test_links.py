import os
import shutil

import pytest

from fedsim import api
from fedsim.audit.recorded import recorded
from fedsim.config import Part
from fedsim.core.errors import BadRecording
from fedsim.core.files import write_whole
from fedsim.run.links import refuse_links
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config

LINKED = (
    "rounds",
    "truth",
    "guesses",
    "state",
    "audit",
    "rounds/0002",
    "truth/0003",
    "state/0003",
    "state/.0004.part",
    "config.toml",
    "leakage.parquet",
    "metrics.parquet",
    "report.html",
    ".lock",
    "rounds/0001/sent.safetensors",
    "rounds/0001/uploads.safetensors",
    "truth/0001/clients.safetensors",
    "guesses/0001.safetensors",
    "state/0003/params.safetensors",
)
DOORS = {
    "resume": api.resume,
    "attack": lambda path: api.attack(path, [Part(name="llg")]),
    "audit": recorded,
    "report": lambda path: api.report([path]),
}


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", LINKED)
def test_no_link_in_a_run_is_followed(name, recordings, tmp_path):
    path = recordings.copy(small_config(), tmp_path / "run").path
    target, place = tmp_path / "target", path / name
    if place.is_dir():
        shutil.copytree(place, target)
        shutil.rmtree(place)
    else:
        target.write_bytes(place.read_bytes() if place.exists() else b"mine")
        place.unlink(missing_ok=True)
    if name.startswith("rounds") and target.is_dir():
        (target / "0009").mkdir()  # that resuming would delete
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(target)
    before = files(tmp_path)
    for door in DOORS.values():
        with pytest.raises(BadRecording, match=f"{place}: must be its own, without links"):
            door(path)
    assert files(tmp_path) == before


def test_a_pipe_in_a_run_is_refused_and_not_waited_for(recordings, tmp_path):
    path = recordings.copy(small_config(), tmp_path / "run").path
    os.mkfifo(path / "truth" / "0001" / "9.safetensors")
    with pytest.raises(BadRecording, match="got a link or device"):
        RunFolder(path)


def test_the_run_itself_may_be_a_link_and_other_files_beside_it(recordings, tmp_path):
    path = recordings.copy(small_config(), tmp_path / "run").path
    (tmp_path / "latest").symlink_to(path)
    (path / "notes").symlink_to("/nowhere")  # neither read nor written
    api.attack(tmp_path / "latest", [Part(name="llg")])
    refuse_links(tmp_path / "nowhere")
    with pytest.raises(BadRecording, match="notes"):
        refuse_links(path)


def test_a_file_is_not_written_through_a_link_in_its_place(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".table.{os.getpid()}.part").symlink_to(victim)
    (tmp_path / "table").symlink_to(victim)
    write_whole(tmp_path / "table", lambda path: path.write_text("new"))
    assert victim.read_text() == "mine"
    assert (tmp_path / "table").read_text() == "new"
    assert not (tmp_path / "table").is_symlink()
