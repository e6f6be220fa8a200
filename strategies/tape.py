"""The tape: every upload of every round on disk, written whole or not at all.

    rounds/0001/sent.safetensors     the weights sent in round 1; where not all clients were sent
                                     the same, those that most of them were sent
    rounds/0001/sent/….safetensors   other weights, sent to some clients, under a hash of them
    rounds/0001/uploads.safetensors  what each client uploaded, verbatim, as a group of arrays; with
                                     it what it is, and the name of the weights sent where they are
                                     not the first file

Under secure aggregation the one group is a cohort: the weighted mean of some clients' uploads, and
who they are.

An upload is kept as it came (weights or gradient); `strategies.tape_views` reads deltas off it.
"""

import gc
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

from fedsim.config import Record
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.files import save_tensors
from fedsim.core.group_writer import GroupWriter, Written
from fedsim.core.groups import Group, groups_in, state_of, was_written
from fedsim.core.listing import FILE, files_below, write_list
from fedsim.core.types import Params, Upload
from strategies.tape_files import members_in

SENT, UPLOADS = "sent", "uploads"
FEW = 64  # rounds that are looked for one by one
ROUND = re.compile("[0-9]{4,9}")


class Tape:
    """Writes rounds into `folder/rounds`.

    Args:
        folder: The run folder.
        every: Record every k-th round, from the first.
        clients: Record only these; None for all.
        append: Whether rounds may already be there.

    Raises:
        ConfigError: There are rounds already and `append` is not set.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        every: int = 1,
        clients: Iterable[str] | None = None,
        append: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.record = Record(every=every, clients=None if clients is None else tuple(clients))
        if not append and recorded_rounds(self.folder):
            raise ConfigError(f"tape: must be a folder without rounds, got {self.folder}")
        self._round, self._uploads = 0, None
        self._finished: tuple[int, tuple[int, ...]] | None = None  # a round, and its file's state
        shutil.rmtree(self._spool, ignore_errors=True)  # of a process that was killed

    def keeps(self, round_: int, client: str | None = None) -> bool:
        """Return whether a round (and in it a client) is recorded."""
        return self.record.keeps(round_, client)

    def begin(self, round_: int, uploads: int = 1) -> None:
        """Begin a round, and leave nothing of one that was not finished.

        Args:
            round_: Its number.
            uploads: How many are expected; more cost a copy of their file.
        """
        if self._uploads is not None:
            self._uploads.discard()
        path = _path(self.folder, round_, UPLOADS)
        self._round, self._uploads = round_, GroupWriter(path, {"round": round_}, uploads)

    def write_sent(self, round_: int, sent: Params, name: str | None = None) -> None:
        """Write the weights that a round starts from; with a name, those of some clients only."""
        save_tensors(sent_path(self.folder, round_, name), sent, {"round": round_})

    def write_upload(
        self,
        round_: int,
        client: str,
        upload: Params,
        num_examples: int | float | None,
        kind: str,
        members: Sequence[str] = (),
        *,
        sent: str | None = None,
    ) -> Written:
        """Write what one client uploaded, or the mean over `members` by their examples.

        It is there to be read by others once the round is finished.

        Args:
            round_: Which.
            client: Whose, or the name of the cohort.
            upload: The tensors as they came.
            num_examples: As the client states it; None where it does not.
            kind: `weights` or `gradient`.
            members: The clients of a cohort.
            sent: The name of the weights that the client was sent, where they have one.
        """
        if self._uploads is None or self._round != round_:
            self.begin(round_)
        assert self._uploads is not None
        facts = {
            "num_examples": num_examples,
            "upload": kind,
            "members": json.dumps(list(members)) if members else None,
            "sent": sent,
        }
        given = {key: value for key, value in facts.items() if value is not None}
        return self._uploads.add(client, upload, given)

    def spool(self, round_: int, client: str, upload: Params) -> Path:
        """Write an upload that is not recorded but too large to hold; its reader deletes it."""
        name = hashlib.blake2b(client.encode(), digest_size=16).hexdigest()  # maybe not a file's
        path = self._spool / f"{_name(round_)}-{name}.safetensors"
        save_tensors(path, upload, {})
        return path

    def finish(self, round_: int) -> None:
        """Finish a round: its uploads, and the list of its files with their checksums, if any."""
        if self._uploads is not None and self._round == round_:
            self._uploads.close()
            self._uploads = None
            if (path := _path(self.folder, round_, UPLOADS)).exists():
                self._finished = round_, state_of(path)
        folder = _path(self.folder, round_, SENT).parent
        if folder.exists():
            write_list(folder / FILE, files_below(folder, ["."]))

    def trust(self, round_: int) -> None:
        """Let this process read a round that it has just finished without comparing its checksum.

        As long as the file is as it was when the round was finished.
        """
        if self._finished is not None and self._finished[0] == round_:
            was_written(_path(self.folder, round_, UPLOADS), self._finished[1])

    def discard_spool(self) -> None:
        """Let go of what `spool` wrote and nobody reads any more."""
        if self._spool.is_dir():
            gc.collect()  # Flower's RecordDict refers to itself
            with suppress(OSError):
                self._spool.rmdir()

    @property
    def _spool(self) -> Path:
        return self.folder / "rounds" / ".spool"


def recorded_rounds(folder: Path) -> list[int]:
    """Return the rounds on a tape, in order."""
    return numbered(folder / "rounds")


def rounds_after(folder: Path, before: int, latest: int) -> list[int]:
    """Return the rounds with uploads after one, until another; of few, without listing all."""
    numbers: Iterable[int] = range(before + 1, latest + 1)
    if latest - before > FEW:
        numbers = (number for number in recorded_rounds(folder) if before < number <= latest)
    return [number for number in numbers if uploads_path(folder, number).exists()]


def numbered(folder: Path) -> list[int]:
    """Return the rounds that have a folder of their own below one, in order."""
    names = [path.name for path in folder.glob("[0-9]*")]
    return sorted(int(name) for name in names if ROUND.fullmatch(name) and name == _name(int(name)))


def recorded_clients(folder: Path, round_: int) -> list[str]:
    """Return the clients on a tape in one round, numbers in numerical order."""
    return list(in_order(uploads_of(folder, round_)))


def is_recorded(folder: Path, round_: int, client: str) -> bool:
    """Return whether a client is on a tape in one round."""
    return client in uploads_of(folder, round_)


def in_order(clients: Iterable[str]) -> tuple[str, ...]:
    """Return clients sorted, numbers in numerical order."""
    return tuple(sorted(clients, key=lambda name: (not name.isdigit(), name.zfill(20))))


def cohort_name(members: Iterable[str]) -> str:
    """Return the name of a cohort: that of the same clients in every round, and of no others."""
    text = json.dumps(sorted(members)).encode()
    return f"cohort-{hashlib.blake2b(text, digest_size=4).hexdigest()}"


def members_of(folder: Path, round_: int, client: str) -> tuple[str, ...]:
    """Return the clients whose uploads are in one on tape: itself, or a cohort's.

    Raises:
        BadRecording: The file is damaged.
    """
    return members_in(_upload(folder, round_, client), client)


def upload_kind(folder: Path, round_: int, client: str) -> Upload:
    """Return what a recorded client uploaded: "weights" or "gradient".

    Raises:
        BadRecording: The file is damaged, or was not written by a recorder.
    """
    upload = _upload(folder, round_, client)
    stated = upload.metadata.get("upload")
    for kind in get_args(Upload):
        if stated == kind:
            return kind
    raise BadRecording(f"{upload.path}: upload must be weights or gradient, got {stated}")


def uploads_of(folder: Path, round_: int) -> Mapping[str, Group]:
    """Return the uploads of a round; none where none are recorded."""
    path = _path(folder, round_, UPLOADS)
    return groups_in(path) if path.exists() else {}


def _upload(folder: Path, round_: int, client: str) -> Group:
    """Return what was recorded of a client.

    Raises:
        BadRecording: Nothing was.
    """
    return upload_in(uploads_of(folder, round_), folder, round_, client)


def upload_in(uploads: Mapping[str, Group], folder: Path, round_: int, client: str) -> Group:
    """Return one client's of the uploads of a round.

    Raises:
        BadRecording: It has none.
    """
    if client not in uploads:
        path = _path(folder, round_, UPLOADS)
        raise BadRecording(f"{path}: must hold the upload of client {client}, got none")
    return uploads[client]


def uploads_path(folder: Path, round_: int) -> Path:
    """Return the file of what the clients of a round uploaded."""
    return _path(folder, round_, UPLOADS)


def _path(folder: Path, round_: int, name: str) -> Path:
    return Path(folder, "rounds", _name(round_), f"{name}.safetensors")


def sent_path(folder: Path, round_: int, name: str | None) -> Path:
    """Return the file of the weights that most clients were sent, or of others by their name."""
    shared = _path(folder, round_, SENT)
    return shared if name is None else shared.with_suffix("") / f"{name}.safetensors"


def _name(round_: int) -> str:
    return f"{round_:04d}"
