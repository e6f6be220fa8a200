import sys

import pytest

from fedsim import api, config, sweeps
from fedsim.audit.recorded import recorded
from fedsim.config import Part
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.run import trust
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config
from tests.recordings import forge_config

EVIL = "evil_fedsim_part"


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module beside the recording that leaves a trace when it is imported."""
    (tmp_path / f"{EVIL}.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\ndef f(*a, **k): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "ran"
    sys.modules.pop(EVIL, None)


def received(recordings, tmp_path, monkeypatch, *settings):
    """Return a run folder as somebody else sends it."""
    run = recordings.copy(small_config(), tmp_path / "run")
    table = config.read(run.path / "config.toml", settings)
    forge_config(run.path, table)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    return run.path


NAMED = {
    "model": f"model={EVIL}:f",
    "data": f"data={EVIL}:f",
    "defense": f"defense={EVIL}:f",
    "attack": f"attack={EVIL}:f",
    "prior": f'attack=[{{name="dlg", prior="{EVIL}:f"}}]',
    "nested": f'attack=[{{name="dlg", x=[[{{y="{EVIL}:f"}}]]}}]',
    "strategy": f"federation.strategy={EVIL}:f",
    "mechanism": f'audit={{mechanism="{EVIL}:f", claim=1.0, relation="replace"}}',
    "auxiliary": f'foreign={{num_classes=10, input_shape=[1,8,8], auxiliary="{EVIL}:f"}}',
}


@pytest.mark.parametrize("setting", NAMED.values(), ids=NAMED)
def test_nothing_that_a_recording_names_is_imported(
    setting, evil, recordings, tmp_path, monkeypatch
):
    path = received(recordings, tmp_path, monkeypatch, setting)
    listed = config.read(path / "config.toml").attack
    attacks = [part for part in listed if ":" not in part.name] or [Part(name="llg")]
    for door in (api.resume, recorded, lambda run: api.attack(run, attacks)):
        if listed[0].name == f"{EVIL}:f" and door not in (api.resume, recorded):
            door(path)  # an attack of one's own choice needs none of the recording's
            continue
        with pytest.raises(BadRecording, match=f"--allow {EVIL}|another app"):
            door(path)
    assert not evil.exists()


@pytest.mark.twin
def test_a_report_imports_nothing_even_of_ones_own_run(evil, recordings, tmp_path, monkeypatch):
    names = dict.fromkeys(("model", "data", "defense"), f"{EVIL}:f")
    settings = [f"{key}={name}" for key, name in names.items()]
    path = received(recordings, tmp_path, monkeypatch, *settings, f"attack={EVIL}:f,llg")
    trust.remember(path / "config.toml", RunFolder(path).config)
    page = api.report([path]).read_text()
    assert "so what this defense promises\nis not stated here" in page
    assert not evil.exists()


def test_what_is_allowed_is_imported_and_runs_of_ones_own_need_no_flag(
    evil, recordings, tmp_path, monkeypatch
):
    path = received(recordings, tmp_path, monkeypatch, f"defense={EVIL}:f")
    with pytest.raises(BadRecording) as refusal:
        api.attack(path, [Part(name="llg")])
    assert str(refusal.value) == (
        f"{path}/config.toml: defense.0.name must name no module, path or address, except in a run "
        f"of your own or with --allow, got '{EVIL}:f'; if you trust it, add --allow {EVIL}"
    )
    with pytest.raises(ConfigError, match="must make a Defense"):
        api.attack(path, [Part(name="llg")], allow=[EVIL])
    assert evil.exists()
    evil.unlink()
    sys.modules.pop(EVIL)
    trust.remember(path / "config.toml", RunFolder(path).config)
    with pytest.raises(ConfigError, match="must make a Defense"):
        api.attack(path, [Part(name="llg")])
    assert evil.exists()


PLACES = {
    "root": "data.root=elsewhere",
    "users": 'data={name="digits", partition="user", users="/etc/passwd"}',
    "address": 'engine={name="ray", address="ray://203.0.113.1:10001"}',
    "cluster": 'engine={name="ray", address="auto"}',
    "option": 'data={name="digits", cache="~/x"}',
    "up": 'data={name="digits", cache=".."}',
}


@pytest.mark.parametrize("setting", PLACES.values(), ids=PLACES)
def test_no_path_or_address_of_a_recording_is_used(setting, recordings, tmp_path, monkeypatch):
    path = received(recordings, tmp_path, monkeypatch, setting)
    for door in (api.resume, recorded, lambda run: api.attack(run, [Part(name="llg")])):
        with pytest.raises(BadRecording, match="must name no module, path or address"):
            door(path)


def test_a_run_that_names_nothing_outside_needs_no_memory(recordings, tmp_path, monkeypatch):
    path = received(recordings, tmp_path, monkeypatch, "seed=0")
    api.attack(path, [Part(name="llg")])
    assert not (tmp_path / "another user").exists()


def test_a_changed_config_is_not_the_one_that_was_remembered(recordings, tmp_path, monkeypatch):
    path = received(recordings, tmp_path, monkeypatch, "model=tests.builders:bilinear")
    trust.remember(path / "config.toml", RunFolder(path).config)
    RunFolder(path).check_trusted()
    forge_config(path, config.read(path / "config.toml", [f"model={EVIL}:f"]))
    with pytest.raises(BadRecording, match=EVIL):
        RunFolder(path).check_trusted()


def test_ones_own_runs_with_parts_of_ones_own_resume(tmp_path, undrawn):
    table = {"name": "tests.builders:toy_dataset"}
    mine = small_config(data=table, federation={"rounds": 1, "clients": 2})
    run = api.run(mine, tmp_path / "run")
    api.resume(run.path)
    cells = config.cells(run.path / "config.toml", [], [])
    assert len(cells) == 1
    sweeps.sweep(cells, tmp_path / "sweep")


@pytest.mark.parametrize("setting", ["data=llg:f", "model=llg:f"])
def test_a_part_that_is_named_now_does_not_allow_a_module_of_its_name(
    setting, evil, recordings, tmp_path, monkeypatch
):
    (tmp_path / "llg.py").write_text((tmp_path / f"{EVIL}.py").read_text())
    path = received(recordings, tmp_path, monkeypatch, setting)
    with pytest.raises(BadRecording, match="got 'llg:f'; if you trust it, add --allow llg"):
        api.attack(path, [Part(name="llg")])
    assert not evil.exists()


def test_a_report_opens_no_truth_that_a_recording_names(recordings, tmp_path, monkeypatch):
    elsewhere = str(tmp_path / "private")
    told = f'foreign={{num_classes=10, input_shape=[1,8,8], truth="{elsewhere}"}}'
    path = received(recordings, tmp_path, monkeypatch, told)
    with pytest.raises(BadRecording, match=r"foreign.truth must .*, got '.*/private'"):
        api.report([path])
    assert api.report([path], allow=[elsewhere]).exists()


def test_a_file_that_is_called_like_a_column_is_a_path(recordings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    users = 'data={name="digits", partition="user", users="secret"}'
    path = received(recordings, tmp_path, monkeypatch, users)
    RunFolder(path).check_trusted()
    (tmp_path / "secret").write_text("0\n")
    with pytest.raises(BadRecording, match=r"data.users must .* got 'secret'"):
        RunFolder(path).check_trusted()


def test_a_user_without_a_home_remembers_nothing(recordings, tmp_path, monkeypatch):
    path = received(recordings, tmp_path, monkeypatch, "model=tests.builders:bilinear")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", str)
    trust.remember(path / "config.toml", RunFolder(path).config)
    with pytest.raises(BadRecording, match="--allow tests.builders"):
        RunFolder(path).check_trusted()
