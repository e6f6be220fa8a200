"""What was seen of every client, read off a tape: observations, cohorts and views.

Nothing is read before an attack asks for it. A delta is taken on reading, in the client's
precision, exactly as a real server would see it. A cohort's is its mean's delta times the number
of clients: the sum of its clients' gradients, weighted by their numbers of examples.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar, overload

from fedsim.config.foreign import Source
from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile
from fedsim.core.groups import Group
from fedsim.core.memory import Memory
from fedsim.core.types import LocalTraining, Observation, Params, Update, View
from strategies.deltas import Delta, Once, Renamed, Times
from strategies.tape import in_order, recorded_rounds, sent_path, upload_in, uploads_of
from strategies.tape_files import check_upload, members_in

SENT_NAME = re.compile("[0-9a-f]{32}")
Item = TypeVar("Item")


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
        return uploads_of(self.folder, self.round)

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
            file = TensorFile(sent_path(self.folder, self.round, name))
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
        upload = upload_in(self.uploads, self.folder, self.round, client)
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
