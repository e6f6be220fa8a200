"""The ground truth of what was recorded: of one client, or of a cohort under secure aggregation."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import torch

from adversary.grading.truth import joined, read_coins, read_truth, read_truths
from adversary.members.scores import groups_of
from adversary.secrets import SECRETS, secret_of
from clients import carried
from fedsim.core.ground_truth import Truth
from fedsim.run.prepare import Plan
from fedsim.run.run_folder import RunFolder
from strategies.tape import is_recorded, members_of, recorded_clients, recorded_rounds


def truth_of(
    folder: RunFolder,
    round_: int,
    client: str,
    plan: Plan | None = None,
    *,
    single: bool = False,
) -> Truth | None:
    """Return what a client used in a round; of a recorded cohort, what all its clients used.

    None if one of them keeps it.

    Args:
        folder: The run.
        round_: Which round.
        client: Whose, or which cohort's.
        plan: Knows the classes, and the rows of the training set if there is one.
        single: Whether this is a client's and no cohort's for sure; its upload is not opened then.

    Raises:
        BadRecording: A file is damaged.
    """
    recorded = not single and is_recorded(folder.path, round_, client)
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
    rounds = [round_]
    if so_far:
        rounds = [number for number in recorded_rounds(folder.path) if number <= round_]
    truths: dict[str, Truth | None] = {}
    clients = recorded_clients(folder.path, round_)
    alone = [client for client in clients if client in single]
    latest = read_truths(folder.truth, round_, alone, **_limits(plan))
    for client in clients:
        if client not in latest:
            latest[client] = truth_of(folder, round_, client, plan)
        earlier = [_earlier(plan, folder, number, client) for number in rounds[:-1]]
        used = [*earlier, latest[client]]
        whole = None
        if used[-1] is not None:
            whole = joined([truth for truth in used if truth is not None])
        whole = with_canary(plan, with_ranges(plan, with_members(plan, whole)))
        truths[client] = with_secrets(plan, with_usage(plan, client, whole))
    return _with_users(truths)


def _earlier(plan: Plan, folder: RunFolder, round_: int, client: str) -> Truth | None:
    """Return what a client used in an earlier round, read once in a run; truth may come late."""
    kept = plan.memory.get(_earlier, folder.path, dict[tuple[int, str], Truth], keep=1)
    truth = kept.get((round_, client)) or truth_of(folder, round_, client, plan)
    if truth is not None:
        kept[round_, client] = truth
    return truth


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


def _with_users(truths: dict[str, Truth | None]) -> dict[str, Truth | None]:
    """Return truths with the number of clients that used each candidate."""
    members = [t.members for t in truths.values() if t is not None and t.members is not None]
    if not members:
        return truths
    users = torch.stack(members).sum(dim=0)
    return {c: None if t is None else replace(t, users=users) for c, t in truths.items()}
