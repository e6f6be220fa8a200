"""What the server's loop counts."""

from collections import Counter
from types import SimpleNamespace

from fedsim.core.rows import Measure
from fedsim.federation.rounds import _rounds_of, _uploaded
from fedsim.run.checkpoint import Checkpoint
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config


def test_an_upload_that_came_late_or_was_refused_counts_for_epsilon(tmp_path):
    recording = SimpleNamespace(
        members=["0", "1"], failures=[("2", "no reply in time"), ("1", "refused")]
    )
    assert _uploaded(recording) == {"0", "1", "2"}
    folder = RunFolder.create(tmp_path / "run", small_config())
    for round_ in (1, 2):
        rows = [
            Measure(round_, "client", "update_norm", 1.0, "0"),
            Measure(round_, "client", "failed", 1.0, "2", "no reply in time"),
            Measure(round_, "client", "failed", 1.0, "0", "another reply"),
            Measure(round_, "attack", "llg_failed", 1.0, "0", "no head"),
        ]
        folder.commit(Checkpoint(round_, {}, ({}, {})), [], rows, {})
    assert _rounds_of(folder) == Counter({"0": 2, "2": 2})  # as a resumed run counts
