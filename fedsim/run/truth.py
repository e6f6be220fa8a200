"""The ground truth of what was recorded: of one client, or of a cohort under secure aggregation."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adversary.grading.truth import joined, read_coins, read_truth, read_truths
from adversary.members.scores import groups_of
from adversary.secrets import SECRETS, secret_of
from clients import carried
from fedsim.core.ground_truth import Truth
from fedsim.core.truths import shared_path
from fedsim.run.prepare import Plan
from fedsim.run.run_folder import RunFolder
from strategies.tape import is_recorded, members_of, recorded_clients, rounds_after

BYTES = 2**28  # of what clients used so far: 256 MiB


def truth_of(
    folder: RunFolder,
    round_: int,
    client: str,
    plan: Plan | None = None,
) -> Truth | None:
    """Return what a client used in a round; of a recorded cohort, what all its clients used.

    None if one of them keeps it.

    Args:
        folder: The run.
        round_: Which round.
        client: Whose, or which cohort's.
        plan: Knows the classes, and the rows of the training set if there is one.

    Raises:
        BadRecording: A file is damaged.
    """
    recorded = is_recorded(folder.path, round_, client)
    names = members_of(folder.path, round_, client) if recorded else (client,)
    limits = _limits(plan)
    truths = [read_truth(folder.truth, round_, name, **limits) for name in names]
    present = [truth for truth in truths if truth is not None]
    return joined(present) if len(present) == len(truths) else None


def _limits(plan: Plan | None) -> dict[str, int]:
    """Return how many classes and rows there are, as far as that is known."""
    if plan is None:
        return {}
    limits = {"classes": plan.auxiliary.num_classes}
    if plan.config.foreign is None:
        limits["rows"] = len(plan.federated.dataset.labels)
    return limits


def truths_of(
    plan: Plan,
    folder: RunFolder,
    round_: int,
    *,
    so_far: bool = False,
    single: Collection[str] = (),
) -> dict[str, Truth | None]:
    """Return what every client recorded in a round used, with the answer for every candidate.

    In that round, or in all recorded rounds until then; None for a client that keeps its truth.
    Uploads of the `single`, which are no cohorts for sure, are not opened for it.
    """
    clients = recorded_clients(folder.path, round_)
    alone = [client for client in clients if client in single]
    latest = read_truths(folder.truth, round_, alone, **_limits(plan))
    used = {client: _used(plan, folder, round_, client, latest) for client in clients}
    if so_far:
        history = plan.memory.get(History, folder.path, lambda: History(plan, folder), keep=1)
        used = {client: history.until(round_, client, used[client]) for client in clients}
    return _with_users({client: with_secrets(plan, truth) for client, truth in used.items()})


def _used(
    plan: Plan, folder: RunFolder, round_: int, client: str, read: Mapping[str, Truth | None]
) -> Truth | None:
    """Return what a client used in a round, with the answers that rounds add to."""
    truth = read[client] if client in read else truth_of(folder, round_, client, plan)
    truth = joined([truth]) if truth is not None else None
    truth = with_canary(plan, with_ranges(plan, with_members(plan, truth)))
    return with_usage(plan, client, truth)


def with_members(plan: Plan, truth: Truth | None) -> Truth | None:
    """Return a client's truth with the answer for every candidate, if there are any."""
    candidates = plan.auxiliary.candidates
    if truth is None or plan.candidates is None or candidates is None or not len(truth.indices):
        return truth
    members = torch.isin(plan.candidates, truth.indices)
    return replace(truth, members=members, classes=groups_of(candidates.labels))


def with_ranges(plan: Plan, truth: Truth | None) -> Truth | None:
    """Return a client's truth with the answer for every range, if there are any."""
    if truth is None or plan.ranges is None or not len(truth.indices):
        return truth
    hit = plan.ranges.hit_by(truth.indices)
    return replace(truth, ranges=hit, range_classes=plan.ranges.ranges.labels)


def with_canary(plan: Plan, truth: Truth | None) -> Truth | None:
    """Return a client's truth with the canary that it used, if it did."""
    canary = plan.federated.canary
    if truth is None or canary is None or canary.row not in truth.indices:
        return truth
    return replace(truth, canary=canary.place, canaries=len(canary.inputs))


def with_usage(plan: Plan, client: str, truth: Truth | None) -> Truth | None:
    """Return a client's truth with the answer for every record of its set, if there is one."""
    rows = plan.sets.rows.get(client) if plan.sets else None
    if truth is None or rows is None or not len(truth.indices):
        return truth
    return replace(truth, in_set=torch.isin(rows, truth.indices))


def with_secrets(plan: Plan, truth: Truth | None) -> Truth | None:
    """Return a client's truth with the class of each secret that attacks ask for."""
    if truth is None or not len(truth.indices):
        return truth
    rules, classes = plan.auxiliary.rules, {}
    for family, marks in plan.marks.items():
        if family in SECRETS:
            assert rules is not None  # they come with the marks
            classes[family] = secret_of(family, marks[truth.indices], rules)
    if "attribute" in plan.marks and plan.candidates is not None:
        marks = plan.marks["attribute"][plan.candidates.clamp(min=0)]
        truth = replace(truth, attributes=(plan.candidates >= 0) & (marks == 1))
    if not classes:
        return truth
    return replace(truth, secrets={name: s for name, s in classes.items() if s is not None})


def carried_by(
    plan: Plan, folder: RunFolder, client: str, rounds: Iterable[int]
) -> carried.Relation | None:
    """Return what canaries a client carried in any of some rounds; None if it kept no coins.

    A deployed client may refuse; it then trains as always.
    """
    relation = carried.relation_of(plan.config.audit, plan.defense, client)
    if relation is None:
        return None
    coins = (read_coins(folder.truth, number, client) for number in rounds)
    return relation if any(drawn is not None for drawn in coins) else None


class History:
    """What every client used in all rounds until one; a round is read once for each.

    A client's truth may come late: it is looked for again until it is there, and then all of the
    client's is read again.

    Args:
        plan: Of the run.
        folder: The run.
    """

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        self.plan, self.folder = plan, folder
        self.rounds: list[int] = []
        self._of_client: OrderedDict[str, _SoFar] = OrderedDict()
        self._bytes = 0

    def until(self, round_: int, client: str, latest: Truth | None) -> Truth | None:
        """Return what a client used in all recorded rounds until one, as `_used` does for one.

        Args:
            round_: The latest.
            client: Whose.
            latest: What it used there; without it there is no answer.
        """
        before = self.rounds[-1] if self.rounds else 0
        self.rounds += rounds_after(self.folder.path, before, round_)
        so_far = self._of_client.pop(client, _SoFar())
        self._bytes -= so_far.bytes
        if so_far.round > round_ or any(self._read(late, client) for late in so_far.late):
            so_far = _SoFar()
        for number in self.rounds[bisect_right(self.rounds, so_far.round) :]:
            if number < round_:
                so_far = self._with(so_far, number, client, self._read(number, client))
        if latest is not None and so_far.round < round_:
            so_far = self._with(so_far, round_, client, latest)
        self._of_client[client] = so_far
        self._bytes += so_far.bytes
        while self._bytes > BYTES and len(self._of_client) > 1:
            self._bytes -= self._of_client.popitem(last=False)[1].bytes
        return None if latest is None else so_far.used

    def _read(self, round_: int, client: str) -> Truth | None:
        return _used(self.plan, self.folder, round_, client, {})

    def _with(self, before: "_SoFar", round_: int, client: str, truth: Truth | None) -> "_SoFar":
        """Return what was used until a round, from what was used until the one before it."""
        if truth is not None:
            used = truth if before.used is None else both(before.used, truth)
            return _SoFar(round_, used, before.late)
        known = shared_path(self.folder.truth, round_).exists()  # of a simulation, whole
        late = known and not is_recorded(self.folder.path, round_, client)
        return _SoFar(round_, before.used, before.late if late else (*before.late, round_))


@dataclass(frozen=True)
class _SoFar:
    """What a client used until a round, and the rounds of which it has not told it."""

    round: int = 0
    used: Truth | None = None
    late: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """How much it takes, about."""
        tensors = () if self.used is None else vars(self.used).values()
        return 1024 + sum(it.nbytes for it in tensors if isinstance(it, Tensor))


def both(before: Truth, after: Truth) -> Truth:
    """Return what was used before or after, with the answers for either."""
    return replace(
        joined([before, after]),
        members=_either(before.members, after.members),
        classes=after.classes if before.classes is None else before.classes,
        ranges=_either(before.ranges, after.ranges),
        range_classes=after.range_classes if before.range_classes is None else before.range_classes,
        in_set=_either(before.in_set, after.in_set),
        canary=after.canary if before.canary is None else before.canary,
        canaries=max(before.canaries, after.canaries),
    )


def _either(before: Tensor | None, after: Tensor | None) -> Tensor | None:
    if before is None or after is None:
        return after if before is None else before
    return before | after


def _with_users(truths: dict[str, Truth | None]) -> dict[str, Truth | None]:
    """Return truths with the number of clients that used each candidate."""
    members = [t.members for t in truths.values() if t is not None and t.members is not None]
    if not members:
        return truths
    users = torch.stack(members).sum(dim=0)
    return {c: None if t is None else replace(t, users=users) for c, t in truths.items()}
