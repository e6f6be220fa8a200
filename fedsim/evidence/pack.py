"""The folder of a pack: built beside its place and renamed, so that it is there whole or not."""

import csv
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

import fedsim
from fedsim.check.output import as_json
from fedsim.core.errors import ConfigError
from fedsim.core.tables import write_table
from fedsim.evidence.facts import Facts
from fedsim.evidence.mapping import mapping
from fedsim.evidence.text import text
from fedsim.report.run import write_report
from fedsim.run.public_base import BASE
from fedsim.run.run_folder import RunFolder

SUMS, RECORDING = "SHA256SUMS", "recording.sha256"
PACKAGES = ("fedsim", "flwr", "torch", "numpy")
AUDIT_FILES = ("audit.parquet", "audit.html", "configs.txt")
GAME_FILES = ("games.parquet", "report.html", "configs.txt")
HOLDS = {
    "report.html": "the run's report, one file without network",
    "leakage.parquet": "the ledger: a row per attack, client, round and metric; leakage.csv too",
    "metrics.parquet": "accuracy, norms, ε, every failure with its reason; metrics.csv too",
    "config.toml": "everything resolved; may name folders of the machine that ran it",
    BASE: "the model's parameters that never train; no upload holds them",
    "versions.json": "of the packages that ran it and of those that made this pack, with its date",
    "attacks.csv": "what became of each attack",
    "mapping.csv": "requirements and questions, with what the run shows of each",
    "gate.json": "verdicts on the rules of the run's config",
    RECORDING: "checksums of every file of the run when this pack was made",
    SUMS: "checksums of this folder; sha256sum -c SHA256SUMS",
}


def write_pack(
    folder: RunFolder,
    out: Path,
    *,
    pictures: bool = False,
    truth: bool = False,
    uploads: bool = False,
    allow: Iterable[str] = (),
) -> None:
    """Write the evidence pack of a run.

    Args:
        folder: The run.
        out: A new folder, outside the run.
        pictures: Whether the report shows recovered examples; personal data.
        truth: Whether the clients' ground truth is copied; personal data.
        uploads: Whether the uploads are copied; attacks recover data from them.
        allow: Folders of ground truth that the config may name, if you did not write it.

    Raises:
        BadRecording: A file of the run is damaged.
        ConfigError: There is something at `out`, or it lies in the run; no round is finished, or
            this is a tape that was never attacked.
        OSError: The disk is full or the folder cannot be written.
    """
    if not (folder.path / "config.toml").exists():
        raise ConfigError(f"{folder.path}: must be attacked before, got a bare tape")
    _check_place(folder.path, out)
    folder.check_bytes()  # whose checksums the pack states
    folder.check_truth(allow)
    facts = Facts(folder)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _fill(part, facts, pictures=pictures, truth=truth, uploads=uploads)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _check_place(run: Path, out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: must be a new folder, got {out}")
    if out.resolve().is_relative_to(run.resolve()):
        raise ConfigError(f"--out: must lie outside the run, got {out}")


def _fill(part: Path, facts: Facts, *, pictures: bool, truth: bool, uploads: bool) -> None:
    run = facts.folder.path
    created = datetime.datetime.now(datetime.UTC).date().isoformat()
    (part / RECORDING).write_text(_sums(run, run), encoding="utf-8")
    shutil.copyfile(run / "config.toml", part / "config.toml")
    for name, table in (("leakage", facts.folder.ledger()), ("metrics", facts.folder.metrics())):
        write_table(part / f"{name}.parquet", table)
        _write_csv(part / f"{name}.csv", table.column_names, _cells(table))
    _write_json(part / "versions.json", _versions(facts, created))
    _write_csv(part / "attacks.csv", list(_ATTACK), (_attack(each) for each in facts.answers))
    rows = mapping(facts)
    columns = ["source", "id", "asks", "status", "figure", "file"]
    _write_csv(
        part / "mapping.csv", columns, ([getattr(row, it) for it in columns] for row in rows)
    )
    if facts.gate is not None:
        verdicts: dict[str, Any] = {**as_json(facts.gate), "folder": facts.run.name}
        _write_json(part / "gate.json", verdicts)
    _copy_results(facts, part)
    wanted = (("truth", truth, facts.folder.truth), ("rounds", uploads, run / "rounds"))
    for name, copied, source in wanted:
        if copied and source.is_dir():
            shutil.copytree(source, part / name)
    if uploads and (run / BASE).exists():
        shutil.copyfile(run / BASE, part / BASE)
    write_report([facts.folder], part / "report.html", with_pictures=pictures)
    names = {path.name for path in part.iterdir()} | {SUMS}
    files = [f"{name}: {holds}" for name, holds in HOLDS.items() if name in names]
    words = text(facts, files=files, pictures=pictures, created=created)
    (part / "evidence.md").write_text(words, encoding="utf-8")
    (part / SUMS).write_text(_sums(part, part), encoding="utf-8")


def _copy_results(facts: Facts, part: Path) -> None:
    for name, source, files in (
        ("audit", facts.audit_folder, AUDIT_FILES),
        ("game", facts.games_folder, GAME_FILES),
    ):
        for file in files if source else ():
            if source and (source / file).is_file():
                (part / name).mkdir(exist_ok=True)
                shutil.copyfile(source / file, part / name / file)


def _sums(folder: Path, below: Path) -> str:
    """Return the checksums of all files, as `sha256sum` writes and checks them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    lines = []
    for path in paths:
        if path.name.startswith(".") or path.suffix == ".part":  # locks and parts of writers
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = path.relative_to(below).as_posix()
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        mark = "\\" if escaped != name else ""
        lines.append(f"{mark}{digest}  {escaped}\n")
    return "".join(lines)


_ATTACK = ("attack", "adaptive", "family", "updates", "answered", "failed", "refused", "reason")


def _attack(answers: Any) -> list[Any]:
    return [getattr(answers, name) for name in _ATTACK]


def _cells(table: pa.Table) -> Iterator[list[Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)  # type: ignore[misc]


def _write_csv(path: Path, names: list[str], rows: Any) -> None:
    """Write a table; text that a spreadsheet would take as a formula is quoted by an apostrophe."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_plain_cell(value) for value in row] for row in rows)


def _plain_cell(value: Any) -> Any:
    formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if formula else value


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, sort_keys=True)
    path.write_text(f"{text}\n", encoding="utf-8")


def _versions(facts: Facts, created: str) -> dict[str, Any]:
    """Return versions of what ran the run, as its config holds them, and of what packs it."""
    packed = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "created": created,
        "run": dict(facts.config.versions),
        "pack": {"python": platform.python_version(), **packed, "revision": _revision()},
    }


def _revision() -> str | None:
    """Return the commit of fedsim's sources, `+` where they differ from it; None without git."""
    root = Path(fedsim.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    git = ("git", "-C", str(root))
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=30
        )
        state = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if state.stdout.strip() else "")
