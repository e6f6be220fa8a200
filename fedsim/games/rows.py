"""The table of games: a row per adversary and metric."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch.nn import functional

from adversary.games import scores
from adversary.games.play import Played
from fedsim.core.errors import ConfigError
from fedsim.core.files import write_whole
from fedsim.core.tables import schema_of


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table; a value that is not known is NaN here and null there.

    Attributes:
        setting: The name of the config.
        game: The game's name.
        batch_size, rounds: Records per upload, and uploads per trial.
        adversary: `static` or `adaptive`.
        metric, value, low, high: What is measured, with its 95 % interval.
        blind: The value of a guess without any update.
        imputation: The value of who reads the records, less the secret column, and no upload;
            of AUROC only.
        ceiling: What no adversary exceeds: the lower of the two below.
        records_ceiling: What follows from the records: the count ceiling.
        promised_ceiling: What follows from the defense's guarantee of the secret.
        promise: That guarantee; None where there is none.
        task_accuracy: Of the model in the last round, on test records.
        defense: The names of the defense's links.
        option: Of them, the one that settings of this defense differ in.
        strength: Its value.
        chosen: The predictor of the last round.
        held_out: Its AUROC on held-out shadow trials; of several rounds the lowest.
        defect: Why the adversary says nothing about the defense; None if nothing speaks against it.
        one_by_one: How many clients did not train together in the batched engine, and why; None
            where all did, and in other engines.
        trials: How many were played.
        seconds: That the game took.
    """

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
    imputation: float | None
    ceiling: float | None
    records_ceiling: float | None
    promised_ceiling: float | None
    promise: str | None
    task_accuracy: float | None
    defense: str
    option: str | None
    strength: float | None
    chosen: str
    held_out: float | None
    defect: str | None
    one_by_one: str | None
    trials: int
    seconds: float

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Which game it is of."""
        return self.setting, self.game, self.batch_size, self.rounds


SCHEMA = schema_of(Row)


def measured(played: Played, classes: int) -> Iterator[tuple[str, scores.Measured, float]]:
    """Yield each metric, its value, and that of a guess without any update."""
    answers, secrets = played.log_probabilities, played.secrets
    yield "accuracy", scores.accuracy(answers, secrets), 1 / classes
    yield "auroc", scores.auroc_of(answers, secrets), 0.5
    if classes == 2:
        odds, positive = answers[:, 1] - answers[:, 0], secrets == 1
        yield "advantage", scores.Measured(scores.advantage(odds, positive)), 0.0
        for metric, rate in (("tpr_1", 0.01), ("tpr_01", 0.001)):
            yield metric, scores.Measured(scores.tpr_at(odds, positive, fpr=rate)), rate
    yield "information", scores.information(answers, secrets), 0.0
    loss = functional.nll_loss(answers, secrets)
    yield "cross_entropy", scores.Measured(float(loss) / math.log(2)), math.log2(classes)


def defect(played: Played) -> str | None:
    """Return a sentence if an adversary is worse than chance, by more than chance.

    On held-out shadow trials it could have noticed. In the trials, whoever turns its answers is as
    much above chance: a leak.
    """
    worst = played.worst
    if scores.below_chance(worst):
        return f"below chance on held-out shadow trials: AUROC {worst.value:.3f}"
    measured = scores.auroc_of(played.log_probabilities, played.secrets)
    if scores.below_chance(measured):
        return f"below chance: AUROC {measured.value:.3f}; its answers leak the secret when turned"
    return None


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table."""
    null = lambda value: None if isinstance(value, float) and math.isnan(value) else value
    lines = [{name: null(value) for name, value in asdict(row).items()} for row in rows]
    return pa.Table.from_pylist(lines, schema=SCHEMA)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a table; none if there is no file.

    Raises:
        ConfigError: The file is no such table.
    """
    if not path.exists():
        return []
    try:
        table = pq.read_table(path, schema=SCHEMA, use_threads=False, pre_buffer=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path}: must be a table of games ({error})") from None
    return [Row(**row) for row in table.to_pylist()]


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write the table."""
    write_whole(path, partial(pq.write_table, table_of(rows)))
