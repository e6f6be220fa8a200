"""Damage to a recording, drawn from a seed: accidents, and forgeries with all checksums right."""

import json
import random
import shutil
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import tomli_w
import torch

from fedsim.core import seals
from fedsim.core.files import TensorFile, save_tensors
from fedsim.core.listing import FILE
from fedsim.core.tables import write_table, written_of
from fedsim.run.committed import CONFIG

NASTY = ("", "-1", "1e308", "nan", "[" * 5000, "../../x", "0" * 5000, "\0", "é" * 300, "{}", "null")
NUMBERS = (-1, 0, 3, 2.5, "x", "", [], {}, [[]], True, "../x", "os:getcwd")
HUGE = (2**63, 2**40, 10**9, -1, -(2**40), 0)


def files_of(run: Path) -> list[Path]:
    """Return the files of a run that somebody reads, in order."""
    return sorted(p for p in run.rglob("*") if p.is_file() and p.name not in (".lock", ".tables"))


def accident(run: Path, draw: random.Random, outside: Path) -> str:
    """Damage one file or two without mending a checksum; return what was done."""
    path = draw.choice(files_of(run))
    kind = draw.choice(("flip", "cut", "delete", "append", "swap", "link", "copy", "blank", "move"))
    data = path.read_bytes()
    place = draw.randrange(len(data))
    if kind == "flip":
        changed = bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
    elif kind == "cut":
        path.write_bytes(data[:place])
    elif kind == "delete":
        path.unlink()
    elif kind == "append":
        path.write_bytes(data + draw.randbytes(draw.choice((1, 8, 4096))))
    elif kind == "swap":
        other = draw.choice(files_of(run))
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    elif kind == "link":
        folders = {path.parent, run / "rounds", run / "truth"} - {run}  # which may be a link
        target = draw.choice((path, *sorted(folders)))
        moved = outside / "moved"
        shutil.move(target, moved)
        target.symlink_to(moved)
    elif kind == "copy":
        name = draw.choice(("9.safetensors", "cohort-1.safetensors", "x", "leakage.parquet"))
        (path.parent / name).write_bytes(data)
    elif kind == "blank":
        path.write_bytes(data[:place] + bytes(len(data[place : place + 64])) + data[place + 64 :])
    elif kind == "move":
        path.rename(path.with_name(draw.choice(("0", "1", "2", "9")) + path.suffix))
    return f"{kind} {path.relative_to(run)}"


def forgery(run: Path, draw: random.Random) -> str:
    """Change what one file says, and mend every checksum; return what was done."""
    path = draw.choice(files_of(run))
    forge = {".safetensors": _tensors, ".parquet": _table, ".toml": _config, ".json": _list}
    if path.suffix not in forge:
        return "nothing"
    forge[path.suffix](path, draw)
    _mend(run)
    return f"forge {path.relative_to(run)}"


def _mend(run: Path) -> None:
    """Write the digits of all files into all lists."""
    for path in run.rglob(FILE):
        try:
            files = json.loads(path.read_bytes())["files"]
        except (ValueError, RecursionError, KeyError, TypeError):
            continue
        root = run if path.is_relative_to(run / "state") else path.parent
        for name in files if isinstance(files, dict) else ():
            inside = ".." not in name and "\0" not in name and not name.startswith("/")
            if inside and name and (root / name).is_file():
                files[name] = seals.digits_in(root / name)
        _seal(path, json.dumps({"checksum": seals.UNSEALED, "files": files}).encode())


def _seal(path: Path, data: bytes) -> None:
    path.write_bytes(seals.sealed(data))


def _tensors(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.5:
        _header(path, draw)
        return
    file = TensorFile(path)
    tensors, metadata = dict(file), {k: v for k, v in file.metadata.items() if k != "order"}
    if metadata and draw.random() < 0.4:
        metadata[draw.choice(sorted(metadata))] = draw.choice(NASTY)
    elif tensors:
        name = draw.choice(sorted(tensors))
        value = tensors.pop(name)
        change = draw.randrange(7)
        if change == 0:
            value = torch.full_like(value, draw.choice((0, 1, 100)))
        elif change == 1:
            value = value.double() * draw.choice((float("nan"), float("inf"), -1.0, 1e300))
        elif change == 2:
            value = value.long() + draw.choice((10**9, -1, 2**62))
        elif change == 3:
            value = value.reshape(-1)[: draw.randrange(3)]
        elif change == 4:
            value = value.unsqueeze(0).repeat(2, *[1] * value.ndim)
        elif change == 5:
            value = value.to(draw.choice((torch.complex64, torch.bool, torch.float16, torch.int8)))
        if change != 6:
            tensors[draw.choice((name, name, name, "", "x/../y"))] = value
    save_tensors(path, tensors, metadata)


def _header(path: Path, draw: random.Random) -> None:
    """Change sizes, types and places in a header, or how long it says it is."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    fields = json.loads(data[8:end])
    fields["__metadata__"]["checksum"] = seals.UNSEALED
    names = [name for name in fields if name != "__metadata__"]
    if names:
        field = fields[draw.choice(names)]
        key = draw.choice(("shape", "dtype", "data_offsets"))
        if key == "dtype":
            field[key] = draw.choice(("F64", "I8", "BOOL", "X", "", "C64"))
        elif field[key]:
            field[key][draw.randrange(len(field[key]))] = draw.choice(HUGE)
        else:
            field[key] = [draw.choice(HUGE)] * draw.choice((1, 3, 2000))
    text = json.dumps(fields, separators=(",", ":")).encode()
    size = draw.choice((len(text), len(text), len(text), 2**62, 0, 2**24 + 1))
    _seal(path, size.to_bytes(8, "little") + text + data[end:])


def _table(path: Path, draw: random.Random) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    change = draw.randrange(5)
    if change == 0:
        table = table.drop_columns([draw.choice(table.column_names)])
    elif change == 1:
        table = table.rename_columns([*table.column_names[:-1], "x"])
    elif rows:
        name = draw.choice(table.column_names)
        values = {"string": NASTY, "int32": (-1, 0, 2**31 - 1), "bool": (True, None)}
        kind = str(table.schema.field(name).type)
        value = draw.choice((*values.get(kind, (float("nan"), float("inf"), -1e308, None)), None))
        for row in rows if change == 2 else [draw.choice(rows)]:
            row[name] = value
        if change == 3:
            rows *= 50
        table = type(table).from_pylist(rows, schema=table.schema)
    write_table(path, table, written_of(path))


def _config(path: Path, draw: random.Random) -> None:
    tables = tomllib.loads(path.read_text())
    section = draw.choice([tables, *(it for it in tables.values() if isinstance(it, dict))])
    if section:
        key = draw.choice(sorted(section))
        section[draw.choice((key, key, key, "extra"))] = draw.choice(NUMBERS)
    _seal(path, f"# {seals.UNSEALED}\n{tomli_w.dumps(tables)}".encode())


def _list(path: Path, draw: random.Random) -> None:
    files = json.loads(path.read_bytes())["files"]
    if files and draw.random() < 0.5:
        files.pop(draw.choice(sorted(files)))
    else:
        files[draw.choice(("../../x", "/etc/passwd", "", "\0", CONFIG + "/x", "state/x"))] = "x"
    wrong = draw.choice((files, files, [], 3, {"a": {}}))
    _seal(path, json.dumps({"checksum": seals.UNSEALED, "files": wrong}).encode())
