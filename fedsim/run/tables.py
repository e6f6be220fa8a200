"""The two tables of a run: each round's own rows, and the whole tables with later attacks' rows."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from adversary.auditing.in_rounds import IN_ROUNDS
from fedsim.config import Part
from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording
from fedsim.core.files import write_whole
from fedsim.core.tables import write_table, written_of
from fedsim.run.committed import name_of
from fedsim.run.ledger import LEDGER, MEASURES, METRICS, read_rows
from fedsim.run.rows import in_order, of_attacks, without_attacks

WRITTEN = ".tables"  # of which round both tables were written last
OWN = Rule("recording", "`leakage.parquet`, `metrics.parquet`", "must be of this run's config")
CHECKS = (OWN,)


@dataclass(frozen=True)
class Tables:
    """The tables in a run folder.

    Attributes:
        path: The run folder.
        rounds: The finished ones.
        attacks: Returns those of the run itself.
        config: Returns the checksum of its config; empty of another app's, which later attacks
            change.
    """

    path: Path
    rounds: Sequence[int]
    attacks: Callable[[], Sequence[Part]]
    config: Callable[[], str]

    def write(self, ledger: pa.Table, metrics: pa.Table) -> None:
        """Write both whole tables."""
        of = self.config()
        write_table(self.path / LEDGER, in_order(ledger), of)
        write_table(self.path / MEASURES, metrics, of)
        write_whole(self.path / WRITTEN, lambda file: file.write_text(self._last))

    def is_whole(self, name: str) -> bool:
        """Return whether a whole table was written.

        Raises:
            BadRecording: It was, and is lost: later attacks' rows stand nowhere else.
        """
        if (self.path / name).exists():
            return True
        if (self.path / WRITTEN).exists():
            raise BadRecording(
                f"{self.path / name}: must not be lost, later attacks' rows are in it alone; "
                f"delete {WRITTEN} beside it to go on without them"
            )
        return False

    def check(self, name: str, schema: pa.Schema) -> None:
        """Refuse a whole table that is lost, damaged or another run's.

        Raises:
            BadRecording: It is.
        """
        if self.is_whole(name):
            self._whole(name, schema)

    def _parts(self, name: str, schema: pa.Schema) -> pa.Table:
        folders = (self.path / "state" / name_of(number) for number in self.rounds)
        parts = [read_rows(folder / name, schema) for folder in folders]
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def merged(self, name: str, schema: pa.Schema) -> pa.Table:
        """Return all rounds' own rows, and those that later attacks put into the whole table.

        Raises:
            BadRecording: As `read`.
        """
        parts = self._parts(name, schema)
        if not self.is_whole(name):
            return parts
        names = {*(part.name for part in self.attacks()), *IN_ROUNDS}
        before = self._whole(name, schema)
        later = before.filter(of_attacks(before)) if schema is METRICS else before
        return pa.concat_tables([parts, without_attacks(later, names)])

    def read(self, name: str, schema: pa.Schema) -> pa.Table:
        """Read the whole table; where a resumed run has gone on since, its rounds' parts.

        Raises:
            BadRecording: A file is damaged, or the whole table is lost.
        """
        import pyarrow.compute as pc

        if not self.is_whole(name):
            return self._parts(name, schema)
        table = self._whole(name, schema)
        if self._written() == self._last:
            return table
        parts = self._parts(name, schema)
        behind = (pc.max(table["round"]).as_py() or 0) < (pc.max(parts["round"]).as_py() or 0)
        return self.merged(name, schema) if behind else table

    def _whole(self, name: str, schema: pa.Schema) -> pa.Table:
        """Read a whole table.

        Raises:
            BadRecording: It is damaged, or another run's.
        """
        table, config = read_rows(self.path / name, schema), self.config()
        of = written_of(self.path / name)  # nothing in those of before this was written
        if config and of and of != config:
            raise BadRecording(f"{self.path / name}: {OWN.rule}, got that of another run ({of})")
        return table

    @property
    def _last(self) -> str:
        return str(max(self.rounds, default=0))

    def _written(self) -> str:
        """Return of which round the whole tables were written last; empty if that is lost."""
        path = self.path / WRITTEN
        return path.read_text(errors="replace") if path.exists() else ""
