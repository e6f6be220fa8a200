"""Inference games as experiments: many independent trials against one model."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch.nn import functional

from adversary.games import GAMES, ceilings, scores
from adversary.games.game import Game, Rules
from adversary.games.play import Knowledge, Played, play
from defenses.promise import Relation
from fedsim.config import Cell, Config
from fedsim.core.errors import ConfigError, RunStopped
from fedsim.core.files import write_whole
from fedsim.games.board import Board, check, prepare

TABLE, CONFIGS, REPORT = "games.parquet", "configs.txt", "report.html"
LARGE = 300.0  # an ε beyond which nothing is bounded
SCHEMA = pa.schema(
    [
        ("setting", pa.string()), ("game", pa.string()), ("batch_size", pa.int32()),
        ("rounds", pa.int32()), ("adversary", pa.string()), ("metric", pa.string()),
        ("value", pa.float64()), ("low", pa.float64()), ("high", pa.float64()),
        ("blind", pa.float64()), ("ceiling", pa.float64()), ("chosen", pa.string()),
        ("trials", pa.int32()), ("seconds", pa.float64()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of the table; what is not known is NaN here and null there."""

    setting: str
    game: str
    batch_size: int
    rounds: int
    adversary: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    blind: float
    ceiling: float | None
    chosen: str
    trials: int
    seconds: float


def games(
    cells: Sequence[Cell],
    out: Path,
    *,
    on_rows: Callable[[Sequence[Row]], None] = lambda _: None,
) -> pa.Table:
    """Play all games of all configs, and keep what is there of an earlier call.

    Args:
        cells: Configs and what they are called.
        out: Folder of the table and the report.
        on_rows: Called with the rows of every game, old ones too.

    Raises:
        ConfigError: A config cannot be played, or the folder holds other games.
    """
    boards = {cell.name: cell.config for cell in cells}
    for config in boards.values():
        check(config)
    told = "\n".join(f"{name}: {_decisive(config)}" for name, config in boards.items())
    note = out / CONFIGS
    if note.exists() and note.read_text() != told:
        raise ConfigError(f"{out}: must be these games' folder or not exist, got other configs")
    rows = [Row(**row) for row in _read(out).to_pylist()]
    for name, config in boards.items():
        board = None
        for game, batch, rounds in _grid(config):
            key = (name, game, batch, rounds)
            found = [row for row in rows if _key(row) == key]
            if not found:
                board = board or prepare(config)
                write_whole(note, lambda path: path.write_text(told))
                found = list(_played(name, board, GAMES[game], batch, rounds))
                rows += found
                write_whole(out / TABLE, partial(pq.write_table, _table(rows)))
            on_rows(found)
    return _table(rows)


def _decisive(config: Config) -> str:
    return config.model_copy(update={"versions": {}}).model_dump_json(exclude_none=True)


def _key(row: Row) -> tuple[str, str, int, int]:
    return row.setting, row.game, row.batch_size, row.rounds


def _table(rows: Sequence[Row]) -> pa.Table:
    known = lambda value: None if isinstance(value, float) and math.isnan(value) else value
    told = [{name: known(value) for name, value in asdict(row).items()} for row in rows]
    return pa.Table.from_pylist(told, schema=SCHEMA)


def _read(out: Path) -> pa.Table:
    path = out / TABLE
    if not path.exists():
        return _table([])
    try:
        return pq.read_table(path, schema=SCHEMA)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path}: must be a table of games ({error})") from None


def _grid(config: Config) -> Iterator[tuple[str, int, int]]:
    for game in config.game.play:
        for batch in config.game.batch_size:
            for rounds in config.game.rounds:
                yield game, batch, rounds


def _played(name: str, board: Board, game: Game, batch: int, rounds: int) -> Iterator[Row]:
    asked, begun = board.config.game, time.perf_counter()
    rules = Rules(batch, asked.shares, asked.count, asked.own, asked.users)
    knowledge = Knowledge(
        asked.told_batch_size, asked.knows_model, asked.knows_label, asked.knows_others
    )
    try:
        said = play(
            game, rules, board.private, board.auxiliary, board.client(batch), board.states[:rounds],
            trials=asked.trials, shadows=asked.shadows, knowledge=knowledge, seed=board.config.seed,
        )  # fmt: skip
    except ValueError as error:
        raise RunStopped(f"{game.name}, batches of {batch}: {error}") from None
    spent = time.perf_counter() - begun
    limits = _limits(board, game, rules, rounds)
    for adversary, played in said.items():
        for metric, value, blind in _measured(played, game.classes(rules)):
            yield Row(
                name, game.name, batch, rounds, adversary, metric, value.value, value.low,
                value.high, blind, limits.get(metric, math.nan), played.chosen[-1],
                len(played.secrets), spent,
            )  # fmt: skip


def _measured(played: Played, classes: int) -> Iterator[tuple[str, scores.Measured, float]]:
    """Yield each metric, its value, and that of a guess without any update."""
    told, secrets = played.log_probabilities, played.secrets
    bits = scores.information(told, secrets)
    yield "accuracy", scores.accuracy(told, secrets), 1 / classes
    if classes > 2:
        yield "auroc", scores.macro_auroc(told, secrets), 0.5
    else:
        odds, positive = told[:, 1] - told[:, 0], secrets == 1
        yield "auroc", scores.auroc(odds, positive), 0.5
        yield "advantage", scores.Measured(scores.advantage(odds, positive)), 0.0
        for metric, rate in (("tpr_1", 0.01), ("tpr_01", 0.001)):
            yield metric, scores.Measured(scores.tpr_at(odds, positive, fpr=rate)), rate
    yield "information", bits, 0.0
    loss = functional.nll_loss(told, secrets)
    yield "cross_entropy", scores.Measured(float(loss) / math.log(2)), math.log2(classes)


def _limits(board: Board, game: Game, rules: Rules, rounds: int) -> Mapping[str, float]:
    """Return what no adversary can exceed, by metric.

    Counts of several rounds are one count of as many records for a share; for an attribute in one
    record per round there is no closed form here, and the bound is none.
    """
    once = game.merged_rounds(rules, rounds)
    prior = board.private.prior if board.config.game.column is not None else 0.5
    auroc = 1.0 if once is None else game.ceiling(once, prior)
    bits = math.log2(game.classes(rules)) if once is None else game.bits(once, prior)
    limits = {"auroc": auroc, "information": bits, "advantage": 1.0}
    limits["accuracy"] = 1 - ceilings.error_floor(bits, game.classes(rules))
    private = _private(board, game, rules, rounds)
    return limits | {name: min(limits[name], value) for name, value in private.items()}


def _private(board: Board, game: Game, rules: Rules, rounds: int) -> Mapping[str, float]:
    """Return the limits that the defense's promise sets, where it covers the secret.

    An ε that holds when one record is added or removed holds twice over when one is replaced.
    """
    defense = board.learner.auxiliary.defense
    if defense is None or defense.promise.epsilon is None or game.classes(rules) > 2:
        return {}
    local = board.client(rules.batch).local
    promise, told = defense.promise, (local, rules.batch, rounds)
    mu = promise.mu(*told) if promise.mu else None
    if mu is not None and promise.relation is Relation.REPLACE_CLIENT:
        return {  # two batches are two data sets of one client
            "auroc": ceilings.gaussian_auroc(mu), "advantage": ceilings.gaussian_advantage(mu),
        }  # fmt: skip
    epsilon = promise.epsilon(*told)
    if not game.single_record or rules.count > 1 or epsilon > LARGE:
        return {}
    doubled = min(1.0, promise.delta * (1 + math.exp(epsilon)))
    advantage = ceilings.private_advantage(2 * epsilon, doubled)
    return {"auroc": ceilings.auroc_of_advantage(advantage), "advantage": advantage}
