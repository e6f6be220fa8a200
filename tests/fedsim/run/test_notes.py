from dataclasses import astuple

import pytest

from fedsim.core.rows import Measure, Note
from fedsim.run import notes


@pytest.mark.parametrize("kind", ["note", "failed", "refused"])
@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("attack", ["llg", "my.attacks:mine", "a_failed", "b_note", "c_refused"])
def test_a_note_comes_back_from_its_row(attack, adaptive, kind):
    note = Note(round=3, client="7", attack=attack, adaptive=adaptive, reason="why", kind=kind)
    row = notes.row_of(note)
    assert notes.note_of(vars(row)) == note
    assert row.metric in notes.metrics_of([attack])
    assert row.metric not in notes.metrics_of(["llg-plus"])


def test_rows_are_named_after_the_attack_and_what_there_is_to_say():
    note = Note(round=1, client="0", attack="llg", adaptive=True, reason="why", kind="failed")
    expected = (1, "attack", "llg (adaptive)_failed", 1.0, "0", "why")
    assert astuple(notes.row_of(note)) == expected
    audit = Note(round=1, client=None, attack="bayes", reason="why", split="audit")
    assert astuple(notes.row_of(audit)) == (1, "audit", "bayes_note", 1.0, None, "why")


@pytest.mark.parametrize(
    ("split", "metric"),
    [
        ("client", "failed"),
        ("client", "x_failed"),
        ("attack", "validity"),
        ("audit", "tpr_allowed"),
    ],
)
def test_other_rows_hold_no_note(split, metric):
    assert notes.note_of(vars(Measure(1, split, metric, 1.0))) is None
