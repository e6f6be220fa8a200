"""What a commit says of its round: every file with its checksum; and what a killed one leaves."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fedsim.core import seals
from fedsim.core.errors import BadRecording
from fedsim.core.listing import FILE, compare, files_below, read_list, write_list
from fedsim.core.seals import digits_in
from fedsim.run.checkpoint import CLIENTS, PARAMS, STRATEGY
from fedsim.run.ledger import LEDGER, MEASURES
from fedsim.run.links import ENTRIES
from fedsim.run.public_base import BASE
from strategies.tape import is_recorded, numbered, recorded_rounds

CONFIG = "config.toml"
TABLES = (LEDGER, MEASURES)
MOMENT = (PARAMS, STRATEGY)  # of the last round alone


def name_of(round_: int) -> str:
    """Return what the folder of a round is called."""
    return f"{round_:04d}"


def write(run: Path, round_: int, part: Path) -> None:
    """List a round's files in `part`, the folder that becomes `state/0001` when it is renamed."""
    state = {f"state/{name_of(round_)}/{k}": v for k, v in files_below(part, ["."]).items()}
    write_list(part / FILE, {**_beside(run, round_), **state})


def check(run: Path) -> None:
    """Compare the files of all rounds with the lists that were written with them.

    Without any commit, the lists of the recorder are taken; the last round may lack one, because
    its recorder may have been killed.

    Raises:
        BadRecording: A file is lost, added or changed.
    """
    finished = numbered(run / "state")
    if finished != list(range(len(finished))):
        raise BadRecording(f"{run / 'state'}: must hold every round, got {finished}")
    with_truth = any((run / "truth").glob("*/*.safetensors"))
    for round_ in finished:
        path = run / "state" / name_of(round_) / FILE
        listed = read_list(path)
        without = () if round_ == finished[-1] else MOMENT  # a killed process may have left these
        present = files_below(run, [f"state/{name_of(round_)}"], without) | _beside(run, round_)
        present = {
            k: v for k, v in present.items() if k in listed or not _late(run, round_, k, listed)
        }
        if not with_truth:  # given away without it
            listed = {k: v for k, v in listed.items() if not k.startswith("truth/")}
        if round_ != finished[-1]:
            gone = lambda name: name.startswith("state/") and not name.endswith(TABLES)
            listed = {k: v for k, v in listed.items() if k in present or not gone(k)}
        compare(path, listed, present)
    if not finished:
        _check_recorder(run)


def check_bytes(run: Path) -> None:
    """Hold the bytes of every file that `check` lists, and of answers, to their checksums.

    What a run deletes meanwhile is left out.

    Raises:
        BadRecording: A file is damaged.
    """
    last = max(numbered(run / "state"), default=None)
    for folder in ("rounds", "truth", "guesses", "state"):
        for path in sorted((run / folder).rglob("*")):
            round_ = path.relative_to(run / folder).parts[0].partition(".")[0]
            unfinished = last is not None and round_.isdecimal() and int(round_) > last
            if unfinished or path.is_dir() or path.name.startswith("."):
                continue
            try:
                _check_bytes_of(path)
            except (BadRecording, FileNotFoundError):
                if path.exists():
                    raise


def _check_bytes_of(path: Path) -> None:
    if path.suffix == ".safetensors":
        seals.check(path)
    elif path.suffix in (".parquet", ".json"):
        seals.read(path, path.stat().st_size)


def client_states(run: Path) -> dict[str, Path]:
    """Return the newest file of each client that remembers something, by the rounds' lists.

    Raises:
        BadRecording: A list is damaged.
    """
    files = {}
    for round_ in numbered(run / "state"):
        folder = run / "state" / name_of(round_)
        for name in read_list(folder / FILE):
            path = folder / CLIENTS / name.rpartition("/")[2]  # a name in a list is no path
            if name == path.relative_to(run).as_posix():
                files[path.stem] = path
    return files


def forget(run: Path, round_: int, renewed: Iterable[Path]) -> None:
    """Delete what a newer checkpoint has made useless; the tables stay.

    Args:
        run: The run folder.
        round_: Of the checkpoint that is no longer the newest.
        renewed: Files of clients that have a newer one.
    """
    folder = run / "state" / name_of(round_)
    for path in (*(folder / name for name in MOMENT), *renewed):
        path.unlink(missing_ok=True)


def clear(run: Path, finished: Sequence[int]) -> None:
    """Delete what a killed process left: rounds that were not finished, and half-written files."""
    last = max(finished, default=0)
    for folder in ("rounds", "truth"):
        for round_ in numbered(run / folder):
            if round_ > last:
                shutil.rmtree(run / folder / name_of(round_))
    for path in (run / "guesses").glob("[0-9]*.safetensors"):
        if path.stem > name_of(last) and path.stem.isdecimal():
            path.unlink()
    for path in _parts(run):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    newest = client_states(run)
    for round_ in finished[:-1]:
        states = (run / "state" / name_of(round_)).glob("clients/*.safetensors")
        forget(run, round_, [path for path in states if newest.get(path.stem, path) != path])


def _parts(run: Path) -> list[Path]:
    """Return the half-written files and folders of a run, and of nothing else in its folder."""
    folders = [run / name for name in ENTRIES if (run / name).is_dir()]
    return [*run.glob(".*.part"), *(path for it in folders for path in it.rglob(".*.part"))]


def _check_recorder(run: Path) -> None:
    rounds = recorded_rounds(run)
    for round_ in rounds:
        folder = run / "rounds" / name_of(round_)
        if round_ != rounds[-1] or (folder / FILE).exists():
            compare(folder / FILE, read_list(folder / FILE), files_below(folder, ["."]))


def _beside(run: Path, round_: int) -> dict[str, str]:
    """Return the files of a round outside `state/`, and the config."""
    folders = [f"{name}/{name_of(round_)}" for name in ("rounds", "truth")]
    whole = {name: digits_in(run / name) for name in (CONFIG, BASE) if (run / name).exists()}
    return {**whole, **files_below(run, folders)}


def _late(run: Path, round_: int, name: str, listed: Mapping[str, str]) -> bool:
    """Return whether a file is truth that came after the commit.

    From a client that was too slow, or where all owners bring their truth later.
    """
    if not name.startswith("truth/"):
        return False
    without = not any(other.startswith("truth/") for other in listed)
    return without or not is_recorded(run, round_, Path(name).stem)
