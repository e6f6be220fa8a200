"""What a list of runs shows of one run. Nothing is written, nothing that it names is imported."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from adversary.attacks import is_baseline
from adversary.grading.families import FAMILIES
from fedsim.config import Config
from fedsim.core.errors import FedsimError, one_line, plain
from fedsim.core.units import beyond_blind, title_of, written
from fedsim.run import marks
from fedsim.run.ledger import attacks_of, over_clients
from fedsim.run.run_folder import RunFolder
from strategies.tape import recorded_rounds

State = Literal["running", "finished", "stopped", "failed", "recorded", "unreadable"]
OTHERS = ("mlartifacts", "mlruns")  # folders that MLflow makes beside runs
REPORTS = {"audit.parquet": "audit.html", "games.parquet": "report.html"}  # of audits and games
RESULTS = (*REPORTS, "evidence.md")  # the last of a pack of a run
DEEPEST = 3  # folders below the one that is named: a sweep's runs in a folder of sweeps


@dataclass(frozen=True)
class Strongest:
    """The attack that found most beyond the blind guess; values are means over the whole run.

    Attributes:
        attack: As tables call it.
        metric: Of `value` and `blind`: the first of its family.
        skill: 0 as the blind guess, 1 at most.
    """

    attack: str
    metric: str
    value: float
    blind: float
    skill: float


@dataclass(frozen=True, kw_only=True)
class Glance:
    """One run in a list.

    Attributes:
        path: Its folder.
        date: Seconds since 1970 at which it was begun, by the date of its config.
        state: `recorded` is the tape of another app, `unreadable` a broken or foreign folder.
        reason: Why it failed or cannot be read.
        rounds: How many are done.
        planned: How many there are to be, if that is known.
        config: Its settings, if there are any.
        accuracy: On the test set, after the last evaluated round.
        strongest: Null where no attack was graded above the blind guess.
        attacks: The same in words; where there is none, why: that is not always safety.
    """

    path: Path
    date: float = 0.0
    state: State
    reason: str | None = None
    rounds: int = 0
    planned: int | None = None
    config: Config | None = None
    accuracy: float | None = None
    strongest: Strongest | None = None
    attacks: str = "–"


def glances(folders: Iterable[Path]) -> list[Glance]:
    """Return the runs in folders, the oldest first, and folders without any as unreadable.

    Args:
        folders: Each a run, or a folder of runs. No link is followed below them.
    """
    paths = dict.fromkeys(path for folder in folders for path in runs_in(folder))
    return sorted((glance(path) for path in paths), key=lambda each: (each.date, str(each.path)))


def runs_in(folder: Path) -> list[Path]:
    """Return a folder itself if it is a run, or else the runs in it.

    A folder directly in it that holds no run is returned, too: somebody may look for a run there.
    Audits, games and packs of evidence are left out.
    """
    if is_run(folder):
        return [folder]
    paths = []
    for inner in _folders(folder):
        paths += list(_below(inner, DEEPEST - 1)) or [inner]
    return paths


def reports_in(folder: Path) -> list[Path]:
    """Return the reports of audits and games in a folder: the folder's own, or those below it."""
    return list(_reports(folder, DEEPEST + 1))


def is_run(folder: Path) -> bool:
    """Return whether a folder looks like a run; a pack of evidence has a config, but no rounds."""
    if (folder / "rounds").exists():
        return True
    return (folder / "config.toml").exists() and not _is_result(folder)


def glance(path: Path) -> Glance:
    """Look at one run; whatever stands in the way is its `reason`."""
    try:
        return _glance(path)
    except FedsimError as error:
        reason = str(error)
    except Exception as error:  # whoever made the folder decides what a reader of it raises
        reason = one_line(error)
    return Glance(path=path, date=_date(path), state="unreadable", reason=plain(reason))


def line_of(each: Glance) -> str:
    """Return a run in one line: `finished, 10 of 10 rounds, accuracy 90.0 %, …`."""
    if each.state == "unreadable":
        return f"unreadable, {each.reason}"
    of = "" if each.planned is None else f" of {each.planned}"
    parts = [each.state, f"{each.rounds}{of} rounds"]
    parts += [f"accuracy {written('accuracy', each.accuracy)}"] if each.accuracy is not None else []
    parts += [f"strongest {each.attacks}"] if each.strongest else []
    parts += [each.attacks] if not each.strongest and each.attacks != "–" else []
    return plain(", ".join(parts))


def in_words(ledger: pa.Table, best: Strongest | None) -> str:
    """Return what the attacks came to: `llg 63.1 % (blind 30.2 %)`, or why there is nothing."""
    keys = ["attack", "adaptive", "outcome"]
    outcomes: dict[str, set[str]] = {}
    for row in attacks_of(ledger).group_by(keys, use_threads=False).aggregate([]).to_pylist():
        if not is_baseline(row["attack"]):
            title = title_of(row["attack"], adaptive=row["adaptive"])
            outcomes.setdefault(title, set()).add(row["outcome"])
    every = set().union(*outcomes.values())
    if best:
        value, blind = written(best.metric, best.value), written(best.metric, best.blind)
        text = f"{best.attack} {value} (blind {blind})"
    elif "graded" in every:
        some = any(not is_baseline(each.attack) for each in by_skill(ledger))
        text = "none above blind on average" if some else "not graded: no finite value"
    elif "no truth" in every:
        text = "not graded: no truth"
    else:
        text = "no attack answered" if outcomes else "–"
    silent = sum(not of.isdisjoint({"failed", "refused"}) for of in outcomes.values())
    of = f"{silent} of {len(outcomes)} attacks did not answer every update"
    return f"{text}; {of}" if silent and every - {"failed", "refused"} else text


def strongest(ledger: pa.Table) -> Strongest | None:
    """Return the attack with the highest skill above 0; baselines are none."""
    best = next((each for each in by_skill(ledger) if not is_baseline(each.attack)), None)
    return best if best and best.skill > 0 else None


def by_skill(ledger: pa.Table) -> list[Strongest]:
    """Return the graded attacks, the most skilful first."""
    import pyarrow.compute as pc

    graded = attacks_of(ledger)
    finite = lambda name: pc.fill_null(pc.is_finite(graded[name]), fill_value=False)
    graded = over_clients(graded.filter(pc.and_(finite("value"), finite("blind"))))
    keys = ["attack", "adaptive", "family", "metric"]
    sums = [("value", "mean"), ("blind", "mean")]
    attacks: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for row in graded.group_by(keys, use_threads=False).aggregate(sums).to_pylist():
        title = title_of(row["attack"], adaptive=row["adaptive"])
        metrics = attacks.setdefault((title, row["family"]), {})
        metrics[row["metric"]] = row["value_mean"], row["blind_mean"]
    results = [_of(title, family, metrics) for (title, family), metrics in attacks.items()]
    return sorted(results, key=lambda each: -each.skill)


def _of(title: str, family: str, metrics: dict[str, tuple[float, float]]) -> Strongest:
    ranked = FAMILIES[family].ranked if family in FAMILIES else tuple(metrics)
    main = next((metric for metric in ranked if metric in metrics), next(iter(metrics)))
    value, blind = metrics[main]
    skill = metrics["skill"][0] if "skill" in metrics else beyond_blind(main, value, blind)
    return Strongest(title, main, value, blind, skill)


def _glance(path: Path) -> Glance:
    folder = RunFolder(path)
    config = folder.config if (path / "config.toml").exists() else None
    is_run = config is not None and not config.foreign
    finished = folder.finished_rounds
    rounds = max(finished, default=0) if is_run else len(recorded_rounds(path))
    planned = config.federation.rounds if config and is_run else None
    failure = marks.failure(path)
    fields: dict[str, Any] = {}
    if finished or (path / "leakage.parquet").exists():
        ledger, metrics = folder.ledger(), folder.metrics()
        best = strongest(ledger)
        fields = {"accuracy": _last(metrics, "accuracy"), "strongest": best}
        fields["attacks"] = in_words(ledger, best)
    state: State = "recorded"
    if marks.is_locked(path):
        state, failure = "running", None
    elif is_run:
        done = planned is not None and bool(finished) and rounds >= planned
        state = "failed" if failure else "finished" if done else "stopped"
    return Glance(
        path=path, date=_date(path), state=state, reason=failure if is_run else None,
        rounds=rounds, planned=planned, config=config, **fields,
    )  # fmt: skip


def _last(metrics: pa.Table, name: str) -> float | None:
    import pyarrow.compute as pc

    rows = metrics.filter(pc.equal(metrics["metric"], name))
    pairs = zip(rows["round"].to_pylist(), rows["value"].to_pylist(), strict=True)
    return max(pairs, key=lambda pair: pair[0], default=(0, None))[1]


def _date(path: Path) -> float:
    for name in ("config.toml", "rounds", "."):
        try:
            return (path / name).lstat().st_mtime
        except OSError:
            continue
    return 0.0


def _below(folder: Path, deeper: int) -> Iterator[Path]:
    """Yield the runs in a folder, and itself if it is one."""
    if is_run(folder):
        yield folder
    elif deeper > 0:
        for inner in _folders(folder):
            yield from _below(inner, deeper - 1)


def _reports(folder: Path, deeper: int) -> Iterator[Path]:
    """Yield the reports of audits and games in a folder."""
    for table, report in REPORTS.items():
        if (folder / table).is_file() and (folder / report).is_file():
            yield folder / report
    if deeper > 0:
        for inner in _inner(folder):
            yield from _reports(inner, deeper - 1)


def _folders(folder: Path) -> list[Path]:
    """Return the folders in one that are runs, or may hold some."""
    return [path for path in _inner(folder) if is_run(path) or not _is_result(path)]


def _inner(folder: Path) -> list[Path]:
    """Return the folders in one, without hidden ones and links; none of one that cannot be read."""
    try:
        return [path for path in sorted(folder.iterdir()) if _is_folder(path)]
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    try:
        named = not path.name.startswith(".") and path.name not in OTHERS
        return named and path.is_dir() and not path.is_symlink()
    except OSError:
        return False


def _is_result(folder: Path) -> bool:
    """Return whether a folder holds another result than a run."""
    return any((folder / name).exists() for name in RESULTS)
