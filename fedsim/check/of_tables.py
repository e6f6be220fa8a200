"""What tables of audits, of games and of the model's own test show about a rule."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

import math
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adversary.auditing.finding import METRICS
from fedsim import config as configs
from fedsim.audit import table as audits
from fedsim.audit.rows import SCHEMA as AUDITS
from fedsim.check.evidence import Evidence, Value
from fedsim.config import Rule
from fedsim.core.errors import BadRecording, FedsimError
from fedsim.games import table as games
from fedsim.games.board import played_of
from fedsim.games.rows import read_rows
from fedsim.run.ledger import AUDIT

BOUND = "epsilon_lower"
Rows = Iterable[Mapping[str, Any]]
BLUNT = "no bound can exceed the limit, however the runs come out: there are too few of them"


def of_test(rule: Rule, metrics: pa.Table) -> Evidence:
    """Return what a rule on the model's test compares: a value per round."""
    rows = [
        row for row in metrics.to_pylist() if (row["split"], row["metric"]) == ("test", rule.metric)
    ]
    problems = [f"round {row['round']} has no finite value" for row in rows if _gone(row["value"])]
    if not rows:
        problems = [f"no test of the model has a metric '{rule.metric}'"]
    used = [row for row in rows if not _gone(row["value"])]
    if rule.over == "mean" and used:
        mean = math.fsum(row["value"] for row in used) / len(used)
        return Evidence([_value("test", "all rounds", mean, of="the test set")], problems)
    if rule.over == "last":
        last = max((row["round"] for row in used), default=0)
        used = [row for row in used if row["round"] == last]
    return Evidence(
        [_value("test", f"round {row['round']}", row["value"], of="the test set") for row in used],
        problems,
    )


def failures(metrics: pa.Table) -> list[str]:
    """Return a sentence where clients failed, so that rules are about the others alone."""
    import pyarrow.compute as pc

    failed = pc.and_(pc.equal(metrics["split"], "client"), pc.equal(metrics["metric"], "failed"))
    rows = metrics.filter(failed)
    names = sorted(set(rows["client"].to_pylist()) - {None})
    if not rows.num_rows:
        return []
    more = f" and {len(names) - 4} more" if names[4:] else ""
    cases = f"{rows.num_rows} case{'s' * (rows.num_rows > 1)}"
    return [f"clients failed and uploaded nothing in {cases}: {', '.join(names[:4])}{more}"]


def of_audited_rounds(rule: Rule, ledger: pa.Table, metrics: pa.Table) -> Evidence:
    """Return what canaries in a run show; `metrics` say how much they could have shown."""
    import pyarrow.compute as pc

    rows = ledger.filter(pc.equal(ledger["family"], AUDIT)).to_pylist()
    rows = [row for row in rows if row["metric"] == rule.metric]
    rows = [row for row in rows if rule.attack in (None, row["attack"])]
    if rule.over == "last":
        last = max((row["round"] for row in rows), default=0)
        rows = [row for row in rows if row["round"] == last]
    values, problems, able = [], [], []
    most = {
        (row["round"], row["metric"].removesuffix("_most")): row["value"]
        for row in metrics.to_pylist()
        if row["split"] == AUDIT and row["metric"].endswith("_most")
    }
    for row in rows:
        where = f"round {row['round']}"
        if row["outcome"] == "no truth":
            problems.append(f"{row['attack']} in {where}: no client revealed its coins")
        elif _gone(row["value"]):
            problems.append(f"{row['attack']} in {where} has no finite value")
        elif rule.base and row["ceiling"] is None:
            problems.append(f"{row['attack']} in {where}: nothing is claimed")
        else:
            base = row["ceiling"] if rule.base else 0.0
            values.append(_value(row["attack"], where, row["value"], base, of="canaries"))
            able.append(_can_exceed(rule, base, most.get((row["round"], row["attack"]))))
    return Evidence(values, problems + [BLUNT] * (bool(able) and not any(able)))


def of_audits(rule: Rule, folder: Path) -> Evidence:
    """Return what an audit's folder shows.

    Against a claim, the bounds are those that hold together, of methods that assume no more than
    is claimed.

    Raises:
        BadRecording: Its table is damaged.
    """
    every = audit_rows(folder)
    done = {row["setting"] for row in every}
    settings = _configs(folder / audits.CONFIGS)
    problems = [f"{name}: the audit is not finished" for name in settings if name not in done]
    rows = [row for row in every if METRICS[row["guarantee"]] == rule.metric]
    rows = [row for row in rows if rule.attack in (None, row["canary"], row["method"])]
    values, able = [], []
    for row in rows:
        able.append(_can_exceed(rule, (row["claimed"] or 0.0) if rule.base else 0.0, row["most"]))
        title, where = f"canary '{row['canary']}', {row['method']}", row["setting"]
        if not rule.base:
            if _gone(row["epsilon"]):
                problems.append(f"{title} has no finite value")
            else:
                values.append(_value(title, where, row["epsilon"], of=f"{row['trials']} runs"))
        elif row["claimed"] is None:
            problems.append(f"{title}: nothing is claimed of these neighbours")
        elif row["joint"] is not None:
            of = f"{row['trials']} runs, all bounds together"
            values.append(_value(title, where, row["joint"], row["claimed"], of=of))
        else:
            able.pop()  # assumes what is not claimed, and refutes nothing
    return Evidence(values, problems + [BLUNT] * (bool(values) and not any(able)))


def of_games(rule: Rule, folder: Path) -> Evidence:
    """Return what a games' folder shows: a value per game, with the table's own 95 % interval.

    Raises:
        BadRecording: Its table is damaged.
    """
    every = game_rows(folder)
    rows = [row for row in every if rule.attack in (None, row["game"])]
    rows = [row for row in rows if row["metric"] == rule.metric]
    problems = _unplayed(folder, every)
    problems += [
        f"{row['game']}, {row['adversary']}: {row['defect']}" for row in rows if row["defect"]
    ]
    values = []
    for row in rows:
        title = f"{row['game']}, {row['adversary']}"
        where = f"{row['setting']}, batch {row['batch_size']}, {row['rounds']} rounds"
        if _gone(row["value"]) or (rule.base and _gone(row["blind"])):
            problems.append(f"{title} ({where}) has no finite value")
            continue
        base = row["blind"] if rule.base else 0.0
        low, high = (None if _gone(row[end]) else row[end] - base for end in ("low", "high"))
        of = f"{row['trials']} trials"
        values.append(_value(title, where, row["value"], base, of=of, low=low, high=high))
    return Evidence(values, problems)


def audit_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of an audit's folder.

    Raises:
        BadRecording: Its table is damaged.
    """
    path = folder / audits.TABLE
    try:
        return pq.read_table(path, schema=AUDITS, use_threads=False, pre_buffer=False).to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise BadRecording(f"{path}: must be a table of audits ({error})") from None


def game_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a games' folder.

    Raises:
        BadRecording: Its table is damaged.
    """
    try:
        return [vars(row) for row in read_rows(folder / games.TABLE)]
    except FedsimError as error:
        raise BadRecording(str(error)) from None


def _unplayed(folder: Path, rows: Rows) -> list[str]:
    """Return a sentence per game that the folder's configs name and that has no rows."""
    played = {(row["setting"], row["game"], row["batch_size"], row["rounds"]) for row in rows}
    problems = []
    for name, text in _configs(folder / games.CONFIGS).items():
        section = configs.parse_json(text).game
        for game, batch, rounds in product(played_of(section), section.batch_size, section.rounds):
            if (name, game.name, batch, rounds) not in played:
                problems.append(
                    f"{game.name} was not played ({name}, batch {batch}, {rounds} rounds)"
                )
    return problems


def _configs(path: Path) -> dict[str, str]:
    """Return each setting's name and config as a folder of audits or games keeps them.

    Raises:
        BadRecording: The file is missing or has another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        pairs = [line.partition(": {") for line in lines]
        return {name: "{" + rest.rpartition("}")[0] + "}" for name, _, rest in pairs}
    except (OSError, UnicodeDecodeError) as error:
        raise BadRecording(f"{path}: must say what was done ({error})") from None


def _value(
    title: str,
    where: str,
    value: float,
    base: float = 0.0,
    *,
    of: str,
    low: float | None = None,
    high: float | None = None,
) -> Value:
    return Value(title=title, where=where, value=value, base=base, low=low, high=high, of=of)


def _can_exceed(rule: Rule, base: float, most: float | None) -> bool:
    """Return whether a bound could violate a rule, by the largest ε that its runs can show."""
    return not rule.upward or most is None or most > base + rule.number


def _gone(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
