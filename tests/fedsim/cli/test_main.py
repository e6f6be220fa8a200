import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim import __version__, api
from fedsim.cli import main as cli
from fedsim.cli.columns import Columns, best_of
from fedsim.cli.rounds import ACCURACY
from fedsim.config import dump
from fedsim.federation.progress import Round
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config
from tests.command import fedsim


@pytest.fixture(scope="module")
def finished(recordings, tmp_path_factory):
    return recordings.copy(small_config(), tmp_path_factory.mktemp("cli") / "run").path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(dump(small_config()))
    return tmp_path


def test_a_run_from_a_file_prints_its_rounds_and_the_next_command(here, capsys):
    code, out, err = fedsim(capsys, "run", "run.toml", "--set", "seed=3")
    assert code == 0
    assert err == ""
    assert "digits · mlp · fedavg · 4 clients · 3 rounds → runs/digits-mlp-fedavg" in out
    assert "round  accuracy     llg ASR    idlg ASR   blind ASR   seconds" in out
    assert len([line for line in out.splitlines() if line[:5].strip().isdigit()]) == 4
    assert "Next     fedsim attack runs/digits-mlp-fedavg --with eb-gls-rounds\n" in out
    assert (here / "runs" / "digits-mlp-fedavg" / "report.html").exists()
    assert api.Run(Path("runs/digits-mlp-fedavg")).config().seed == 3
    fedsim(capsys, "run", "run.toml")
    assert (here / "runs" / "digits-mlp-fedavg-2").exists()


def test_json_is_one_object(here, capsys):
    code, out, _ = fedsim(capsys, "run", "run.toml", "--out", "there", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["run"] == "there"
    assert 0 < result["accuracy"] <= 1
    assert {(row["attack"], row["metric"]) for row in result["attacks"]} >= {("llg", "asr")}
    _, out, _ = fedsim(capsys, "attack", "there", "--with", "llg", "--json")
    [asr] = [row for row in json.loads(out)["attacks"] if row["metric"] == "asr"]
    [before] = [r for r in result["attacks"] if (r["attack"], r["metric"]) == ("llg", "asr")]
    assert asr["value"] == before["value"]
    _, out, _ = fedsim(capsys, "report", "there", "--json")
    result = json.loads(out)
    assert result["report"] == "there/report.html"
    assert result["verdict"][0].startswith("label: ")


def test_a_round_names_each_attacks_own_metric(here, capsys):
    attacks = 'attack=["cosine-mia","llg"]'
    code, out, _ = fedsim(
        capsys, "run", "run.toml", "--set", attacks, "--set", "federation.rounds=1"
    )
    assert code == 0
    head, _, line, *_ = out.splitlines()[2:]
    assert "  cosine-mia AUROC     llg ASR  blind AUROC   seconds" in head
    assert "      50.0 %" in line
    assert len(line) == len(head)


def test_with_many_attacks_a_round_stays_one_line_and_names_the_best(here, capsys):
    attacks = 'attack=["llg","llg-star","llg-plus","idlg","zlg","random"]'
    code, out, _ = fedsim(
        capsys, "run", "run.toml", "--set", attacks, "--set", "federation.rounds=1"
    )
    assert code == 0
    lines = out.splitlines()
    head, _, line, *_ = lines[next(k for k, it in enumerate(lines) if it.startswith("round ")) :]
    assert len(head) <= 80
    words = ["round", "accuracy", "llg", "ASR", "best", "ASR", "blind", "ASR", "seconds"]
    assert head.split() == words
    assert len(line) == len(head)
    means = api.means(api.Run(Path("runs/digits-mlp-fedavg")).ledger())
    asr = {row["attack"]: row["value"] for row in means if row["metric"] == "asr"}
    best = max(asr.keys() - {"random"}, key=lambda name: asr[name])
    assert f"{100 * asr['llg']:.1f} % " in line
    assert f" {best} {100 * asr[best]:.1f} % " in line
    _, out, _ = fedsim(
        capsys, "run", "run.toml", "--set", attacks, "--set", "federation.rounds=1", "--json"
    )
    assert {row["attack"] for row in json.loads(out)["attacks"]} == asr.keys()


def columns(attacks: list[str], width: int) -> list[str]:
    return list(Columns.that_fit(attacks, width, records=False, first=ACCURACY).shown)


def test_columns_are_the_configs_first_that_fit():
    names = ["llg", "idlg", "a-long-attack-name"]
    whole = 15 + 12 + 12 + 24 + 12 + 10  # round and accuracy, three attacks, blind, seconds
    assert columns(names, whole) == names
    assert columns(names, whole - 1) == ["llg"]
    assert columns(names, 40) == []
    assert columns([], 80) == []
    assert best_of({"random": 0.9, "llg": 0.5, "idlg": 0.6}) == "idlg"
    assert best_of({"random": 0.9}) == "random"
    assert best_of({}) is None


def test_attacks_on_a_recording_are_a_row_each_sorted_by_skill(finished, here, capsys):
    shutil.copytree(finished, "copy")
    code, out, _ = fedsim(capsys, "attack", "copy", "--with", "idlg,llg,random")
    assert code == 0
    head, *rows = [line.split() for line in out.splitlines() if line]
    assert head == ["attack", "ASR", "blind", "skill", "exact", "precision", "recall", "ms"]
    skills = [float(row[5]) for row in rows[:3]]  # a share and its % sign are two words
    assert skills == sorted(skills, reverse=True)
    assert {row[0] for row in rows[:3]} == {"llg", "idlg", "random"}
    assert rows[3][:3] == ["Next", "fedsim", "report"]


def test_a_report_draws_the_client_asked_for(finished, here, capsys):
    code, _, _ = fedsim(capsys, "report", finished, "--client", "2", "--out", "two.html")
    assert code == 0
    assert "True and inferred labels of client 2" in Path("two.html").read_text()
    code, _, err = fedsim(capsys, "report", finished, "--client", "22", "--out", "none.html")
    assert code == 2
    assert err.strip() == (
        "fedsim: --client: must be one of the 4 clients attacked, got '22'; the nearest is '2'"
    )
    assert not Path("none.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run", "--set", "local.lrr=1"], 2, "local.lrr: must be a known key; did you mean 'lr'?"),
        (["run", "--set", "data=minst"], 2, "did you mean 'mnist'?"),
        (["run", "--set", "attack=lgg"], 2, "must be a known name, got 'lgg'; did you mean 'llg'?"),
        (["run", "--rounds", "5"], 2, "did you mean --set federation.rounds=5"),
        (["run", "--lr=0.5"], 2, "fedsim run; did you mean --set local.lr=0.5?"),
        (["run", "--model"], 2, "fedsim run; did you mean --set model.name=STRING?"),
        (["run", "--sett", "seed=1"], 2, "fedsim run; did you mean '--set'?"),
        (["--lr", "1"], 2, "--lr: must be an option of fedsim; did you mean --set local.lr=1?"),
        (["evidence", "x"], 2, "--out: must be given (New folder of the pack), got none"),
        (["export"], 2, "RUN: must be given (Run folder), got none"),
        (["report", "x", "--rounds", "5"], 2, "--rounds: must be an option of fedsim report; one"),
        (["rnu"], 2, "command: must be one of fedsim, got 'rnu'; did you mean 'run'?"),
        (["deploy", "innit"], 2, "one of fedsim deploy, got 'innit'; did you mean 'init'?"),
        (["run", "--set", "rounds=5"], 2, "rounds: must be a known key; did you mean 'federation."),
        (["run", "--set", "local.rounds=5"], 2, "must be a known key; did you mean 'federation.ro"),
        (["run", "--engine", "rya"], 2, "got 'rya'; did you mean 'ray'?"),
        (["run", "--set", "engine=ray"], 2, "must be a table, got 'ray'; did you mean 'engine.nam"),
        (["config", "--search", "xyz"], 2, "--search: must be words of a setting, got 'xyz'; one"),
        (["run", "--set", "defense=clap"], 2, "did you mean 'clip'?"),
        (
            ["run", "--set", "defense=[{name='clip', bound=-1.0}]"],
            2,
            "defense.clip.bound: must be > 0",
        ),
        (["run", "--set", "federation.strategy=fedavh"], 2, "did you mean 'fedavg'?"),
        (
            ["run", "--set", "federation.options.eta=1"],
            2,
            "federation.options.eta: must be a known",
        ),
        (["run", "--set", "model=ccn"], 2, "did you mean 'cnn'?"),
        (["run", "--engine", "spark"], 2, "engine.name: input should be 'inline', 'ray' or"),
        (["run", "nowhere.toml"], 2, "nowhere.toml: must be a readable file"),
        (["run", "--resume"], 2, "--resume: must find an unfinished run under runs/"),
        (["run", "--resume", "--out", "nowhere"], 1, "nowhere: must be a run folder"),
        (["run", "--resume", "--set", "seed=1"], 2, "--resume: uses the run's own config"),
        (["run", "--out", "taken"], 2, "--out: must be a new folder, got taken"),
        (["run", "--out", "run.toml"], 2, "--out: must be a folder, got the file run.toml"),
        (["run", "--set", "attack=math:pi"], 2, "attack.name: must be an Attack"),
        (["run", "--set", "data=math:pi"], 2, "must be a function or a class, got 3.14"),
        (["run", "--set", "defense=math:pi"], 2, "must be a function or a class, got 3.14"),
        (["run", "--set", "defense=builtins:print"], 2, "defense.name: must make a Defense"),
        (
            ["run", "--set", "defense=[{name='clip', bound=inf}]"],
            2,
            "bound: must be finite, got inf",
        ),
        (["run", "--set", "seed=true"], 2, "seed: input should be a valid integer, got True"),
        (["run", "--set", "model=nowhere:Net"], 2, "model.name: must be an importable"),
        (["run", "--nonsense"], 2, "--nonsense: must be an option of fedsim run; one of"),
        (["attack", "nowhere", "--with", "llg"], 1, "nowhere: must be a run folder"),
        (["attack", "taken", "--with", ","], 2, "--with: must name an attack"),
        (["attack", "nowhere"], 2, "--with: must name an attack"),
        (["report", "nowhere"], 1, "nowhere: must be a run folder"),
        (["list", "atacks"], 2, "list: must be a kind, got 'atacks'; did you mean 'attacks'?"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(here, capsys, arguments, code, sentence):
    (here / "taken").mkdir()
    (here / "taken" / "config.toml").write_text("")
    before = sorted(here.rglob("*"))
    ended, _, err = fedsim(capsys, *arguments)
    assert ended == code
    assert sentence in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(here.rglob("*")) == before


def test_debug_shows_the_traceback_and_stands_anywhere(here, capsys):
    for arguments in (
        ["--debug", "run", "--set", "seed=-1"],
        ["run", "--set", "seed=-1", "--debug"],
    ):
        code, _, err = fedsim(capsys, *arguments)
        assert code == 2
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("fedsim: seed: input should be greater")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyError("x"), "fedsim: a fault of fedsim: KeyError: 'x' (cli/test_main.py:"),
        (MemoryError(), "fedsim: memory: must suffice, got MemoryError (cli/test_main.py:"),
        (
            RecursionError("deep"),
            "fedsim: a fault of fedsim: RecursionError: deep (cli/test_main.py:",
        ),
        (OSError(28, "No space left on device", "/x"), "fedsim: No space left on device: /x"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_whatever_a_command_raises_is_one_sentence(error, sentence, capsys, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr("fedsim.config.read", fail)
    code, _, err = fedsim(capsys, "run")
    assert code == 1
    assert err.startswith(sentence)
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_a_limit_of_memory_is_one_sentence_even_for_the_printer(capfd, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("fedsim.config.read", fail)
    monkeypatch.setattr(cli.err, "print", fail)
    monkeypatch.setattr(sys, "argv", ["fedsim", "run"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    assert capfd.readouterr().err == "fedsim: memory: must suffice, got too little\n"


def test_a_mistake_in_the_config_is_named_before_torch_is_imported():
    code = (
        "import sys; sys.argv = ['fedsim', 'run', '--set', 'local.lr=-1']\n"
        "from fedsim.cli.main import main\n"
        "try: main()\nexcept SystemExit as ended: print(ended.code, 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "2 False"


def test_a_run_starts_without_what_only_audits_and_reports_need():
    late = (
        "scipy.special",
        "scipy.stats",
        "scipy.optimize",
        "pyarrow.compute",
        "sqlalchemy",
        "alembic",
        "flwr.superlink.grid",
        "ray",
        "fedsim.explain",
        "fedsim.report.run",
        "adversary.adapters.breaching",
        "adversary.attacks.dlg",
        "adversary.inversion.matching",
        "fedsim.models.vit",
        "matplotlib",
        "jinja2",
        "pandas",
        "sklearn",
        "torchvision",
        "triton",
        "peft",
        "transformers",
    )
    code = f"import sys; from fedsim import api; print([m for m in {late} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_deleted_working_directory_and_a_locale_of_ascii_are_one_sentence(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    program = Path(sys.executable).parent / "fedsim"
    command = f"cd {gone} && rmdir {gone} && {program} run"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert ended.stderr.strip() == "fedsim: the working directory: must exist, got a deleted one"
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    setting = [str(program), "run", "--set", "local.upload=né€𝔸"]
    ended = subprocess.run(setting, capture_output=True, text=True, check=False, env=ascii_only)
    assert "got 'n\\u00e9\\u20ac\\ud835\\udd38'" in ended.stderr
    bytes_only = [program, "run", "--set", b"data=\xff"]
    ended = subprocess.run(bytes_only, capture_output=True, text=True, check=False)
    assert ended.stderr.strip() == r"fedsim: an argument: must be UTF-8, got 'data=\udcff'"


def test_a_damaged_recording_is_named(finished, here, capsys):
    shutil.copytree(finished, "copy")
    Path("copy/rounds/0002/uploads.safetensors").write_bytes(b"no")
    code, _, err = fedsim(capsys, "attack", "copy", "--with", "llg")
    assert code == 1
    assert "copy/rounds/0002/uploads.safetensors: must be as it was written" in err
    shutil.rmtree("copy")
    shutil.copytree(finished, "copy")
    Path("copy/leakage.parquet").write_bytes(b"no")
    code, _, err = fedsim(capsys, "report", "copy")
    assert code == 1
    assert "copy/leakage.parquet: must be as it was written" in err


def test_ctrl_c_says_how_to_go_on(here, capsys, monkeypatch):
    def stop(path, **options):
        RunFolder.create(path, small_config())
        options["on_round"](Round(0, 0.1, {}, (), 0.1))
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "run", lambda config, path, **options: stop(path, **options))
    code, _, err = fedsim(capsys, "run", "run.toml", "--out", "there")
    assert code == 130
    assert "continue with: fedsim run --resume --out there" in err


@pytest.mark.parametrize("words", [(), ("deploy",)])
def test_without_a_command_the_help_is_printed(words, capsys):
    code, out, err = fedsim(capsys, *words)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: {' '.join(('fedsim', *words))} [OPTIONS] COMMAND")


def test_summaries_of_commands_are_whole(capsys):
    _, out, _ = fedsim(capsys, "--help")
    commands = out.split("Commands:")[1]
    assert "print the two lines" in " ".join(commands.split())
    assert "..." not in commands


def test_the_version_is_an_option_and_a_command(capsys):
    said = (0, f"fedsim {__version__}\n", "")
    assert fedsim(capsys, "--version") == fedsim(capsys, "version") == said


def test_help_answers_in_less_than_07_seconds_of_cpu():
    code = (
        "import resource, subprocess, sys; subprocess.run([sys.argv[1], '--help'], check=True,"
        " stdout=subprocess.DEVNULL); u = resource.getrusage(resource.RUSAGE_CHILDREN);"
        " print(u.ru_utime + u.ru_stime)"
    )
    program = Path(sys.executable).parent / "fedsim"
    run = [sys.executable, "-c", code, str(program)]
    seconds = [float(subprocess.run(run, capture_output=True, check=True).stdout) for _ in range(3)]
    assert min(seconds) < 0.7


def test_ctrl_c_before_anything_started(here, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedsim.config.read", stop)
    code, _, err = fedsim(capsys, "run", "run.toml")
    assert code == 130
    assert err.strip() == "fedsim: stopped"


def test_config_prints_all_settings_and_a_run_accepts_what_it_prints(here, capsys):
    code, text, _ = fedsim(capsys, "config", "run.toml", "--set", "seed=3")
    assert code == 0
    Path("printed.toml").write_text(text)
    code, out, _ = fedsim(capsys, "config", "printed.toml", "--json")
    assert json.loads(out)["seed"] == 3
    assert json.loads(out)["federation"]["clients"] == 4
    _, out, _ = fedsim(capsys, "config", "--schema")
    assert json.loads(out)["properties"]["seed"]["minimum"] == 0
    assert fedsim(capsys, "config", "--set", "local.lrr=1")[0] == 2


def test_a_search_of_the_config_prints_keys_with_their_meaning(here, capsys):
    code, out, _ = fedsim(capsys, "config", "--search", "rounds")
    assert code == 0
    assert out.startswith("federation.rounds (integer, at least 1; default: 10)\n    Number of r")
    assert out.endswith("\nNext     fedsim run --set federation.rounds=10\n")
    keys = json.loads(fedsim(capsys, "config", "--search", "learning rate", "--json")[1])
    assert [key["key"] for key in keys] == ["local.lr"]
