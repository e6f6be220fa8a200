"""Notes on single answers, as rows of `metrics.parquet`: written here, and read back here.

A row's metric is the attack's title with `_failed` or `_refused` where it gave no answer, else with
`_note`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from fedsim.core.rows import Measure, Note, NoteKind, NoteSplit
from fedsim.core.units import attack_of, title_of

SUFFIXES: dict[NoteKind, str] = {kind: f"_{kind}" for kind in get_args(NoteKind)}


def row_of(note: Note) -> Measure:
    """Return a note as a row."""
    metric = title_of(note.attack, adaptive=note.adaptive) + SUFFIXES[note.kind]
    return Measure(note.round, note.split, metric, 1.0, note.client, note.reason)


def note_of(row: Mapping[str, Any]) -> Note | None:
    """Return the note that a row holds; None where it holds something else."""
    if row["split"] not in get_args(NoteSplit):
        return None
    for kind, suffix in SUFFIXES.items():
        if row["metric"].endswith(suffix):
            attack, adaptive = attack_of(row["metric"].removesuffix(suffix))
            return Note(
                round=row["round"],
                client=row["client"],
                attack=attack,
                adaptive=adaptive,
                reason=row["reason"] or "",
                kind=kind,
                split=row["split"],
            )
    return None


def metrics_of(attacks: Iterable[str]) -> set[str]:
    """Return the metrics that notes on these attacks can have."""
    return {
        title_of(name, adaptive=adaptive) + suffix
        for name in attacks
        for adaptive in (False, True)
        for suffix in SUFFIXES.values()
    }
