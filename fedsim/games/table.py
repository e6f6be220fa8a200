"""Inference games as experiments: many independent trials against one model."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from adversary.games.game import Game
from adversary.games.imputation import imputation
from adversary.games.learn import Adversary, Knowledge
from adversary.games.play import Played, play
from fedsim.config import Cell, Config
from fedsim.config import Game as Section
from fedsim.core.devices import run_on, with_doubles
from fedsim.core.errors import ConfigError, RunStopped
from fedsim.core.files import write_whole
from fedsim.core.secrets import Rules
from fedsim.games.board import Board, check, played_of, prepare
from fedsim.games.limits import limits
from fedsim.games.rows import Row, defect, measured, read_rows, table_of, write_rows
from fedsim.games.strengths import Strength, strengths
from fedsim.run.device import with_device
from fedsim.run.links import refuse_links

TABLE, CONFIGS, REPORT = "games.parquet", "configs.txt", "report.html"


def games(
    cells: Sequence[Cell],
    out: Path,
    *,
    on_rows: Callable[[Sequence[Row]], None] = lambda _: None,
) -> pa.Table:
    """Play all games of all configs, and take over what an earlier call wrote.

    Args:
        cells: Configs and what they are called.
        out: Folder of the table and the report.
        on_rows: Called with the rows of every game, old ones too.

    Raises:
        ConfigError: A config cannot be played, or the folder holds other games.
        BadRecording: There is a link in the folder.
    """
    for cell in cells:
        check(cell.config.game)
    cells = [replace(cell, config=with_device(cell.config)) for cell in cells]
    refuse_links(out)
    text = "\n".join(f"{cell.name}: {_decisive(cell.config)}" for cell in cells)
    note = out / CONFIGS
    if note.exists() and note.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{out}: must be these games' folder or not exist, got other configs")
    rows, strength = read_rows(out / TABLE), strengths(cells)
    for cell in cells:
        board = None
        for game, batch, rounds in _grid(cell.config.game):
            key = (cell.name, game.name, batch, rounds)
            of_game = [row for row in rows if row.key == key]
            if not of_game:
                board = board or prepare(cell.config)
                write_whole(note, lambda path: path.write_text(text, encoding="utf-8"))
                of_game = list(_played(cell.name, strength[cell.name], board, game, batch, rounds))
                rows += of_game
                write_rows(rows, out / TABLE)
            on_rows(of_game)
    return table_of(rows)


def _decisive(config: Config) -> str:
    return config.model_copy(update={"versions": {}}).model_dump_json(exclude_none=True)


def _grid(section: Section) -> Iterator[tuple[Game, int, int]]:
    for game in played_of(section):
        for batch in section.batch_size:
            for rounds in section.rounds:
                yield game, batch, rounds


def _played(
    name: str, strength: Strength, board: Board, game: Game, batch: int, rounds: int
) -> Iterator[Row]:
    """Play one game, and yield its rows."""
    section, begun = board.config.game, time.perf_counter()
    rules = Rules(batch, section.shares, section.count, section.own, section.users)
    rehearsals = board.learner.auxiliary.rehearsals
    rehearsals.counted()  # what an earlier game left that was stopped is no part of this one
    results = _answers(board, game, rules, rounds)
    seconds, most = time.perf_counter() - begun, limits(board, game, rules, rounds)
    imputed = _imputed(board, game, rules, rounds)
    alone = [f"{count} clients: {reason}" for reason, count in rehearsals.counted().items()]
    for adversary, played in results.items():
        for metric, value, blind in measured(played, game.classes(rules)):
            yield Row(
                setting=name,
                game=game.name,
                batch_size=batch,
                rounds=rounds,
                adversary=adversary,
                metric=metric,
                value=value.value,
                low=value.low,
                high=value.high,
                blind=blind,
                imputation=imputed if metric == "auroc" else math.nan,
                ceiling=most.lowest(metric),
                records_ceiling=most.records.get(metric, math.nan),
                promised_ceiling=most.promised.get(metric, math.nan),
                promise=most.promise,
                task_accuracy=board.accuracies[rounds - 1],
                defense=strength.defense,
                option=strength.option,
                strength=strength.value,
                chosen=played.chosen[-1],
                held_out=played.worst.value,
                defect=defect(played),
                one_by_one="; ".join(alone) or None,
                trials=len(played.secrets),
                seconds=seconds,
            )


def _answers(board: Board, game: Game, rules: Rules, rounds: int) -> dict[str, Played]:
    """Return what each adversary of a game answered.

    Raises:
        RunStopped: The game cannot be played with these records.
    """
    section, device = board.config.game, with_doubles(board.learner.auxiliary.device)
    adversary = Adversary(
        game=game,
        rules=rules,
        learner=board.client(rules.batch),
        pool=board.auxiliary,
        shadows=section.shadows,
        knowledge=_knowledge(section),
        seed=board.config.seed,
        stand_ins=board.rehearsed(rules.batch),
    )
    states, trials = board.states[:rounds], section.trials
    try:
        return run_on(device, play, adversary, board.private, states, trials=trials)
    except ValueError as error:
        raise RunStopped(f"{game.name}, batches of {rules.batch}: {error}") from None


def _imputed(board: Board, game: Game, rules: Rules, rounds: int) -> float:
    """Return the AUROC of who reads all rounds' records instead of uploads.

    Records of several rounds are read as one batch; NaN where the game has no such batch. 1/2 where
    a fair coin sets the secret: records do not say it.
    """
    if game.impute is None:
        return 0.5
    merged = rules if rounds == 1 else game.merged_rounds(rules, rounds)
    if merged is None or (rounds > 1 and merged == rules):
        return math.nan
    trials, seed = board.config.game.trials, board.config.seed
    return imputation(game, merged, board.private, board.read, trials=trials, seed=seed).value


def _knowledge(section: Section) -> Knowledge:
    return Knowledge(
        batch=section.told_batch_size,
        model=section.knows_model,
        label=section.knows_label,
        others=section.knows_others,
    )
