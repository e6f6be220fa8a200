"""A run is made once, and a copy is the test's own."""

from fedsim import api
from tests.builders import small_config
from tests.recordings import Recordings


def test_a_run_is_made_once_and_a_copy_may_be_changed(tmp_path, monkeypatch, undrawn):
    made, run = [], api.run
    monkeypatch.setattr(api, "run", lambda *given: (made.append(given), run(*given))[1])
    shared = Recordings(tmp_path / "shared")
    first, again = (Recordings(tmp_path / "shared").of(small_config()) for _ in range(2))
    assert first.path == again.path
    assert len(made) == 1
    own = shared.copy(small_config(), tmp_path / "own")
    (own.path / "config.toml").unlink()
    assert first.ledger().num_rows > 0
    assert (first.path / "config.toml").exists()
    assert shared.of(small_config(seed=1)).path != first.path
    assert len(made) == 2
