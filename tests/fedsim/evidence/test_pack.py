import csv
import math
import re
import subprocess
from dataclasses import replace

import pyarrow.compute as pc
import pytest

from fedsim import api
from fedsim.config import parse_rule
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.rows import Leak
from fedsim.evidence.facts import Facts
from fedsim.evidence.mapping import SOURCES, mapping
from fedsim.evidence.pack import write_pack
from fedsim.evidence.text import cell, not_tested, text
from fedsim.evidence.threat import threat_model
from fedsim.run.ledger import leakage_table
from fedsim.run.run_folder import RunFolder
from strategies.tape import recorded_clients
from tests.builders import small_config
from tests.command import fedsim

PROMISES = re.compile(r"\b(safe|secure|guaranteed|compliant|anonymous|harmless)\b", re.IGNORECASE)
ADDRESS = "github.com/cosai-oasis/secure-ai-tooling"
OWN_TEXTS = ("evidence.md", "mapping.csv", "attacks.csv", "gate.json", "versions.json")
CONFIG = small_config(
    defense=["prune"],
    attack=["llg", "idlg", "cosine-mia"],
    check={"fail_if": ["label.skill > 0.9"]},
)


@pytest.fixture(scope="module")
def pack(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    path = recordings.copy(CONFIG, folder / "run").path
    write_pack(RunFolder(path), folder / "my pack")
    return path, folder / "my pack"


def rows_of(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def facts_of(recordings, **tables):
    return Facts(RunFolder(recordings.of(small_config(**tables)).path))


def test_checksums_are_those_of_sha256sum(pack):
    run, out = pack
    for folder, name in ((out, out / "SHA256SUMS"), (run, out / "recording.sha256")):
        command = ["sha256sum", "--strict", "--quiet", "-c", str(name)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")
    listed = {line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()}
    present = {path.name for path in out.iterdir()} - {"SHA256SUMS"}
    assert listed == present
    assert {"report.html", "leakage.parquet", "leakage.csv", "config.toml"} <= present


def test_truth_uploads_and_pictures_come_only_by_request(pack, tmp_path):
    run, out = pack
    assert not (out / "truth").exists()
    assert not (out / "rounds").exists()
    write_pack(RunFolder(run), tmp_path / "all", truth=True, uploads=True, pictures=True)
    assert (tmp_path / "all" / "truth" / "0001" / "clients.safetensors").exists()
    assert (tmp_path / "all" / "rounds" / "0001" / "uploads.safetensors").exists()
    text = (tmp_path / "all" / "evidence.md").read_text()
    assert "personal data" in text
    assert "without pictures" in (out / "evidence.md").read_text()


def test_nothing_in_it_promises_anything(pack):
    _, out = pack
    for name in OWN_TEXTS:
        text = (out / name).read_text(encoding="utf-8").replace(ADDRESS, "")
        assert PROMISES.findall(text) == []


def test_the_same_run_gives_the_same_bytes(pack, tmp_path):
    run, out = pack
    write_pack(RunFolder(run), tmp_path / "again")
    dated = re.compile(rb"\d{4}-\d\d-\d\d")
    for path in out.iterdir():
        if path.name != "SHA256SUMS":  # has the checksums of what is dated
            again = (tmp_path / "again" / path.name).read_bytes()
            assert dated.sub(b"", again) == dated.sub(b"", path.read_bytes()), path.name


def test_it_is_there_whole_or_not_at_all_and_overwrites_nothing(pack, tmp_path, monkeypatch):
    run, _ = pack
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "mine").write_text("kept")
    (tmp_path / "file").write_text("kept")
    for out in (tmp_path / "old", tmp_path / "file"):
        with pytest.raises(ConfigError, match="must be a new folder"):
            write_pack(RunFolder(run), out)
    with pytest.raises(ConfigError, match="must lie outside the run"):
        write_pack(RunFolder(run), run / "evidence")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedsim.evidence.pack.write_report", full)
    with pytest.raises(OSError, match="No space"):
        write_pack(RunFolder(run), tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "old"]


def test_a_tape_that_was_never_attacked_is_refused(tmp_path):
    (tmp_path / "tape" / "rounds").mkdir(parents=True)
    with pytest.raises(ConfigError, match="must be attacked before, got a bare tape"):
        write_pack(RunFolder(tmp_path / "tape"), tmp_path / "pack")


@pytest.mark.parametrize(
    "name",
    [
        *("rounds/0002/uploads.safetensors", "rounds/0002/sent.safetensors"),
        *("truth/0001/clients.safetensors", "guesses/0001.safetensors"),
        *("state/0001/metrics.parquet", "leakage.parquet"),
    ],
)
def test_of_a_damaged_run_nothing_is_stated(name, recordings, tmp_path):
    path = recordings.copy(CONFIG, tmp_path / "run").path
    data = bytearray((path / name).read_bytes())
    data[2 * len(data) // 3] ^= 1
    (path / name).write_bytes(data)
    page, pack, rule = tmp_path / "page.html", tmp_path / "pack", parse_rule("label.skill > 0.3")
    for use in (
        lambda: write_pack(RunFolder(path), pack),
        lambda: api.report([path], page),
        lambda: api.check(path, [rule]),
        lambda: api.resume(path),  # of a finished run, whose tables are written again
    ):
        with pytest.raises(BadRecording, match="must be as it was written, by its checksum"):
            use()
    assert not page.exists()
    assert not pack.exists()


def test_rows_name_files_that_exist_and_statuses_follow_the_evidence(pack):
    _, out = pack
    rows = rows_of(out / "mapping.csv")
    assert {row["source"] for row in rows} == set(SOURCES)
    assert all(not row["file"] or (out / row["file"]).exists() for row in rows)
    assert all(row["figure"] for row in rows)
    by = {(row["source"].split()[0], row["id"]): row for row in rows}
    assert by["OWASP", "11.2.5"]["status"] == "shown"
    assert "cosine-mia" in by["OWASP", "11.2.5"]["figure"]
    assert by["OWASP", "11.2.4"]["status"] == "not shown"  # prune is a heuristic
    assert by["GDPR", "35(7)(d)"]["figure"].startswith("defenses of every client: prune")
    assert "no promise" in (out / "evidence.md").read_text()
    attacks = {(row["attack"], row["adaptive"]) for row in rows_of(out / "attacks.csv")}
    assert {("llg", "False"), ("cosine-mia", "False")} <= attacks


def test_claims_are_stated_with_neighbours_and_accountant(recordings):
    defense = [{"name": "clip"}, {"name": "gaussian", "std": 2.0}]
    facts = facts_of(recordings, defense=defense, attack=["llg"])
    row = next(row for row in mapping(facts) if row.id == "11.2.4")
    assert row.status == "shown"
    assert "replace all of one client's data" in row.figure
    assert "Gaussian mechanism; not audited" in row.figure


def test_a_failed_attack_is_no_evidence(recordings, tmp_path):
    path = recordings.copy(small_config(attack=["llg"]), tmp_path / "run").path
    failed = Leak(
        round=1, client="0", attack="cosine-mia", family="membership", metric="auroc", value=None,
        outcome="failed", blind=None, seconds=0.0, reason="a | <b>broken</b> [link](x)",
    )  # fmt: skip
    folder = RunFolder(path)
    folder._tables.write(leakage_table([failed]), folder.metrics())
    facts = Facts(RunFolder(path))
    row = next(row for row in mapping(facts) if row.id == "11.2.5")
    assert (row.status, row.file) == ("not shown", "attacks.csv")
    assert "failed on 1 of 1 update" in row.figure
    assert any("cosine-mia" in it and "not measured" in it for it in not_tested(facts))
    assert cell(failed.reason) == r"a \| &lt;b&gt;broken&lt;/b&gt; \[link\](x)"


def test_what_was_run_on_a_part_of_the_uploads_is_named(recordings):
    facts = facts_of(recordings, attack=[{"name": "llg", "every": 2, "clients": ["0"]}])
    sentences = not_tested(facts)
    uploads = sum(len(recorded_clients(facts.folder.path, r)) for r in (1, 2, 3))
    assert f"Other uploads than these: llg was run on 2 of {uploads} recorded uploads." in sentences
    assert "Clients of which no upload was attacked: 3 of 4." in sentences
    assert "no upload was attacked" not in " ".join(not_tested(facts_of(recordings)))


def test_answers_without_a_grade_and_values_that_are_not_finite_are_named(recordings, tmp_path):
    path = recordings.copy(small_config(attack=["llg"]), tmp_path / "run").path
    folder = RunFolder(path)
    rows = [Leak(**row) for row in folder.ledger().to_pylist()]
    open_ = [replace(row, attack="idlg", value=None, outcome="no truth") for row in rows]
    folder._tables.write(
        leakage_table([replace(rows[0], value=math.nan), *rows[1:], *open_]), folder.metrics()
    )
    words = text(Facts(RunFolder(path)), files=[], pictures=False, created="today")
    assert "No answer was graded of idlg. What they recovered is not measured." in words
    assert "Values that are not finite are left out: 1 of llg." in words


def test_an_epsilon_of_an_earlier_round_is_not_that_of_the_last(recordings, tmp_path):
    defense = [{"name": "clip"}, {"name": "gaussian", "std": 2.0}]
    path = recordings.copy(small_config(defense=defense, attack=["llg"]), tmp_path / "run").path
    folder = RunFolder(path)
    table = folder.metrics()
    kept = pc.or_(pc.not_equal(table["metric"], "epsilon"), pc.less(table["round"], 3))
    folder._tables.write(folder.ledger(), table.filter(kept))
    facts = Facts(RunFolder(path))
    row = next(row for row in mapping(facts) if row.id == "11.2.4")
    assert row.status == "shown in part"
    assert "client after round 2;" in row.figure


def test_a_link_among_the_games_is_refused(recordings, tmp_path):
    path = recordings.copy(CONFIG, tmp_path / "run").path
    (path / "game").mkdir()
    (tmp_path / "secret").write_text("mine")
    (path / "game" / "report.html").symlink_to(tmp_path / "secret")
    with pytest.raises(BadRecording, match="without links"):
        write_pack(RunFolder(path), tmp_path / "pack")


def test_the_threat_model_follows_the_config(recordings):
    words = " ".join(threat_model(facts_of(recordings)))
    assert "the trained weights" in words
    assert "Clients have no defense" in words
    blind = facts_of(
        recordings,
        defense=["prune"],
        auxiliary={"knows_defense": False},
        federation={"secure_aggregation": True},
        attack=["llg"],
    )
    words = " ".join(threat_model(blind))
    assert "sum over a cohort and no single upload" in words
    assert "does not know the clients' defenses" in words
    assert not PROMISES.search(words)
    assert any("knows the clients' defenses" in it for it in not_tested(blind))


def test_the_command(pack, tmp_path, capsys):
    run, _ = pack
    code, out, _ = fedsim(capsys, "evidence", run, "--out", tmp_path / "e")
    assert code == 0
    assert "sha256sum -c SHA256SUMS" in out
