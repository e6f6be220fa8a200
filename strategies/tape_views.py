"""What was seen of every client, read off a tape: observations, cohorts and views.

Nothing is read before an attack asks for it. A delta is taken on reading, in the client's
precision, exactly as a real server would see it. A cohort's is its mean's delta times the number
of clients: the sum of its clients' gradients, weighted by their numbers of examples.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar, overload

from fedsim.config.foreign import Source
from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile
from fedsim.core.groups import Group, state_of
from fedsim.core.memory import Memory
from fedsim.core.types import LocalTraining, Observation, Params, Update, View
from strategies.deltas import Delta, Once, Renamed, Times
from strategies.tape import (
    in_order,
    rounds_after,
    sent_path,
    upload_in,
    uploads_of,
    uploads_path,
)
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
    past = memory.run.get(_Past, (folder, local, id(sources)), lambda: (_Past(), sources), keep=1)
    cohorts = _Cohorts(folder, round_, local, sources, past[0])
    for client in cohorts.of(round_).clients:
        of_client = _OfClient(cohorts, client), _CohortsOf(cohorts, client)
        yield View(*of_client, memory, _Names(cohorts, client))


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


class _Past:
    """Which rounds are on tape, and which clients are in each; kept for all rounds of a run.

    A round is looked at once. If the latest is not the file that it was, all are looked at again.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.token = object()
        self.rounds: list[int] = []
        self._states: list[tuple[int, ...]] = []
        self._of_client: dict[str, array[int]] = {}

    def until(self, cohorts: "_Cohorts") -> None:
        """Take in the rounds until the latest one of a tape."""
        latest = cohorts.latest
        state = state_of(uploads_path(cohorts.folder, latest))
        place = bisect_left(self.rounds, latest)
        if place < len(self.rounds):
            if (self.rounds[place], self._states[place]) == (latest, state):
                return
            self._forget()
        before = self.rounds[-1] if self.rounds else 0
        for round_ in rounds_after(cohorts.folder, before, latest):
            clients = list(cohorts.of(round_).uploads)  # a damaged file is none
            self._states.append(state_of(uploads_path(cohorts.folder, round_)))
            self.rounds.append(round_)
            for client in clients:
                self._of_client.setdefault(client, array("q")).append(round_)

    def of(self, client: str, latest: int) -> Sequence[int]:
        """Return the rounds of a client until one."""
        rounds = self._of_client.get(client, array("q"))
        return rounds if rounds[-1] == latest else rounds[: bisect_right(rounds, latest)]


class _Cohorts:
    """The cohorts of a round and of those before it; one object for all views of the round."""

    def __init__(
        self,
        folder: Path,
        round_: int,
        local: LocalTraining,
        sources: Mapping[str, Source] | None,
        past: _Past,
    ) -> None:
        self.folder, self.latest, self.local, self.sources = folder, round_, local, sources
        self._past = past
        self._opened: dict[int, _Cohort] = {}

    @cached_property
    def past(self) -> _Past:
        """Which clients were in which rounds."""
        self._past.until(self)
        return self._past

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
    def _rounds(self) -> Sequence[int]:
        return self.cohorts.past.of(self.client, self.cohorts.latest)

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


class _Names(_OverRounds[Hashable]):
    """What stands for a client's rounds until each: the tape as it was looked at, and the round."""

    def _of(self, round_: int) -> Hashable:
        return self.cohorts.past.token, self.client, round_


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
