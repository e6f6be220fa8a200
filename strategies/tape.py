"""The tape: every upload of every round on disk, written whole or not at all.

    rounds/0001/sent.safetensors     the weights sent in round 1; where not all clients were sent
                                     the same, those that most of them were sent
    rounds/0001/sent/….safetensors   other weights, sent to some clients, under a hash of them
    rounds/0001/uploads.safetensors  what each client uploaded, verbatim, as a group of arrays; with
                                     it what it is, and the name of the weights sent where they are
                                     not the first file

Under secure aggregation the one group is a cohort: the weighted mean of some clients' uploads, and
who they are.

An upload is kept as it came (weights or gradient): the delta is taken on reading, in the
client's precision, exactly as a real server would see it. A cohort's is its mean's delta times the
number of clients: the sum of its clients' gradients, weighted by their numbers of examples.
"""

import gc
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar, get_args, overload

from fedsim.config import Record
from fedsim.config.foreign import Source
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.files import TensorFile, save_tensors
from fedsim.core.group_writer import GroupWriter, Written
from fedsim.core.groups import Group, groups_in, was_written
from fedsim.core.listing import FILE, files_below, write_list
from fedsim.core.memory import Memory
from fedsim.core.types import LocalTraining, Observation, Params, Update, Upload, View
from strategies.deltas import Delta, Once, Renamed, Times
from strategies.tape_files import check_upload, members_in

SENT, UPLOADS = "sent", "uploads"
SENT_NAME = re.compile("[0-9a-f]{32}")
ROUND = re.compile("[0-9]{4,9}")
Item = TypeVar("Item")


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
        save_tensors(_sent_path(self.folder, round_, name), sent, {"round": round_})

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

        It is there to be read by others once the round is finished. `sent` names the weights that
        the client was sent, where they have a name. Without `num_examples` none are recorded.
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
        known = {key: value for key, value in facts.items() if value is not None}
        return self._uploads.add(client, upload, known)

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
        folder = _path(self.folder, round_, SENT).parent
        if folder.exists():
            write_list(folder / FILE, files_below(folder, ["."]))

    def trust(self, round_: int) -> None:
        """Let this process read a round that it has just finished without comparing its checksum.

        As long as the file is not changed.
        """
        if (path := _path(self.folder, round_, UPLOADS)).exists():
            was_written(path)

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


def numbered(folder: Path) -> list[int]:
    """Return the rounds that have a folder of their own below one, in order."""
    names = [path.name for path in folder.glob("[0-9]*")]
    return sorted(int(name) for name in names if ROUND.fullmatch(name) and name == _name(int(name)))


def recorded_clients(folder: Path, round_: int) -> list[str]:
    """Return the clients on a tape in one round, numbers in numerical order."""
    return list(in_order(_uploads(folder, round_)))


def is_recorded(folder: Path, round_: int, client: str) -> bool:
    """Return whether a client is on a tape in one round."""
    return client in _uploads(folder, round_)


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


def views(
    folder: Path,
    round_: int,
    local: LocalTraining,
    memory: Memory | None = None,
    sources: Mapping[str, Source] | None = None,
) -> Iterator[View]:
    """Return the view of every client recorded in `round_`: its observations up to then.

    Nothing is read before an attack asks for it.

    Args:
        folder: The run folder.
        round_: The round under attack.
        local: The protocol.
        memory: Shared by the views; a new one where none is given.
        sources: Name in the model → the array on tape; as they are where none are given.
    """
    memory = Memory() if memory is None else memory
    cohorts = _Cohorts(folder, round_, local, sources)
    for client in cohorts.of(round_).clients:
        yield View(_OfClient(cohorts, client), _CohortsOf(cohorts, client), memory)


def observation(folder: Path, round_: int, client: str, local: LocalTraining) -> Observation:
    """Return what was seen of one client in a round that it took part in.

    Raises:
        BadRecording: A file is damaged, or was not written by a recorder.
    """
    return _Cohort(folder, round_, local).open(client)


def cohort(
    folder: Path,
    round_: int,
    local: LocalTraining,
    sources: Mapping[str, Source] | None = None,
) -> dict[str, Observation]:
    """Return what was seen of every client in a round; arguments as for `views`.

    Raises:
        BadRecording: A file is damaged, or was not written by a recorder.
    """
    opened = _Cohort(folder, round_, local, sources)
    return {client: opened.of(client) for client in opened.clients}


class _Cohort(Sequence[Observation]):
    """The observations of one round, each opened when it is asked for, and once."""

    def __init__(
        self,
        folder: Path,
        round_: int,
        local: LocalTraining,
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        self.folder, self.round, self.local, self.sources = folder, round_, local, sources
        self._opened: dict[str, Observation] = {}
        self._sent: dict[str | None, tuple[TensorFile, Params, Params]] = {}

    @cached_property
    def uploads(self) -> Mapping[str, Group]:
        """What was recorded."""
        return _uploads(self.folder, self.round)

    @cached_property
    def clients(self) -> list[str]:
        """Their names."""
        return list(in_order(self.uploads))

    def sent(self, upload: Group) -> tuple[TensorFile, Params, Params]:
        """Return the weights sent to the client of an upload: a file, by the model's names, once.

        One object for equal ones.

        Raises:
            BadRecording: Their name is not one that a recorder gives.
        """
        name = upload.metadata.get("sent")
        if name is not None and not SENT_NAME.fullmatch(name):
            raise BadRecording(f"{upload.path}: sent must be the hash of the weights, got {name}")
        if name not in self._sent:
            file = TensorFile(_sent_path(self.folder, self.round, name))
            self._sent[name] = file, self._renamed(file), Once(file)
        return self._sent[name]

    def __len__(self) -> int:
        return len(self.clients)

    def __getitem__(self, index: int) -> Observation:  # type: ignore[override]
        return self.of(self.clients[index])

    def of(self, client: str) -> Observation:
        """Return one client's observation."""
        if client not in self._opened:
            self._opened[client] = self.open(client)
        return self._opened[client]

    def open(self, client: str) -> Observation:
        """Return one client's observation, and do not keep it."""
        upload = _upload_in(self.uploads, self.folder, self.round, client)
        sent, start, origin = self.sent(upload)
        num_examples = check_upload(upload, sent, self.round, client, self.local)
        delta: Params = upload if self.local.upload == "gradient" else Delta(upload, origin)
        if (count := len(members_in(upload, client))) > 1:
            delta = Times(delta, count)
        update = Update(self.round, client, self._renamed(delta), num_examples, num_clients=count)
        return Observation(start, update, self.local)

    def _renamed(self, params: Params) -> Params:
        return Renamed(params, self.sources) if self.sources else params


class _Cohorts:
    """The cohorts of a round and of those before it; one object for all views of the round."""

    def __init__(
        self,
        folder: Path,
        round_: int,
        local: LocalTraining,
        sources: Mapping[str, Source] | None,
    ) -> None:
        self.folder, self.latest, self.local, self.sources = folder, round_, local, sources
        self._opened: dict[int, _Cohort] = {}

    @cached_property
    def rounds(self) -> list[int]:
        """The recorded ones, in order."""
        return [number for number in recorded_rounds(self.folder) if number <= self.latest]

    def of(self, round_: int) -> _Cohort:
        """Return a round's cohort."""
        if round_ not in self._opened:
            self._opened[round_] = _Cohort(self.folder, round_, self.local, self.sources)
        return self._opened[round_]


class _OverRounds(Sequence[Item], Generic[Item]):
    """Something of each round that a client took part in.

    Earlier rounds are looked for once somebody asks for one: most attacks read the latest alone,
    and what they cost does not grow with the rounds before it.
    """

    def __init__(self, cohorts: _Cohorts, client: str) -> None:
        self.cohorts, self.client = cohorts, client

    def _of(self, round_: int) -> Item:
        raise NotImplementedError

    @cached_property
    def _rounds(self) -> list[int]:
        of = self.cohorts.of
        return [number for number in self.cohorts.rounds if self.client in of(number).uploads]

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._rounds)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self._of(round_) for round_ in self._rounds[index]]
        return self._of(self.cohorts.latest if index == -1 else self._rounds[index])


class _CohortsOf(_OverRounds[Sequence[Observation]]):
    """The cohorts that a client was in."""

    def _of(self, round_: int) -> _Cohort:
        return self.cohorts.of(round_)


class _OfClient(_OverRounds[Observation]):
    """One client's observations; those of earlier rounds go with the view, open files and all."""

    def __init__(self, cohorts: _Cohorts, client: str) -> None:
        super().__init__(cohorts, client)
        self._earlier: dict[int, Observation] = {}

    def _of(self, round_: int) -> Observation:
        if round_ == self.cohorts.latest:
            return self.cohorts.of(round_).of(self.client)
        if round_ not in self._earlier:
            self._earlier[round_] = self.cohorts.of(round_).open(self.client)
        return self._earlier[round_]


def _uploads(folder: Path, round_: int) -> Mapping[str, Group]:
    """Return the uploads of a round; none where none are recorded."""
    path = _path(folder, round_, UPLOADS)
    return groups_in(path) if path.exists() else {}


def _upload(folder: Path, round_: int, client: str) -> Group:
    """Return what was recorded of a client.

    Raises:
        BadRecording: Nothing was.
    """
    return _upload_in(_uploads(folder, round_), folder, round_, client)


def _upload_in(uploads: Mapping[str, Group], folder: Path, round_: int, client: str) -> Group:
    if client not in uploads:
        path = _path(folder, round_, UPLOADS)
        raise BadRecording(f"{path}: must hold the upload of client {client}, got none")
    return uploads[client]


def _path(folder: Path, round_: int, name: str) -> Path:
    return Path(folder, "rounds", _name(round_), f"{name}.safetensors")


def _sent_path(folder: Path, round_: int, name: str | None) -> Path:
    shared = _path(folder, round_, SENT)
    return shared if name is None else shared.with_suffix("") / f"{name}.safetensors"


def _name(round_: int) -> str:
    return f"{round_:04d}"
