"""Attacks on what was recorded, without training."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from fedsim.api.reports import draw
from fedsim.config import Part
from fedsim.core.devices import resolved
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.rng import threads
from fedsim.core.rows import Leak, Measure
from fedsim.federation.foreign import App, is_foreign, tell
from fedsim.run.attack_round import attack_round
from fedsim.run.device import attacking_on, on_cpu
from fedsim.run.prepare import Plan, prepare
from fedsim.run.public_base import load_base
from fedsim.run.run_folder import REPORT, RunFolder
from strategies.tape import recorded_rounds


def attack(
    recording: Path | str,
    attacks: Sequence[Part],
    *,
    app: App | None = None,
    allow: Iterable[str] = (),
    device: str = "cpu",
    on_round: Callable[[int, int], None] = lambda *_: None,
) -> pa.Table:
    """Attack a recording without training, and put the rows into its ledger.

    Args:
        recording: A run folder, or the tape of somebody else's Flower app.
        attacks: Names and options; their earlier rows are replaced.
        app: What is said of somebody else's app; what was said before is kept beside its tape.
        allow: Modules, paths and addresses that its config may use, if you did not write it.
        device: Where attacks run the model, as `engine.device`; wherever its clients trained.
        on_round: Called with rounds done and in all.

    Returns:
        The new rows. Of another app's recording a report is drawn too.

    Raises:
        BadRecording: A file is missing or damaged, or its config names what is not allowed.
        ConfigError: An attack's name or option is wrong, something of an app is not told, or the
            machine lacks the device.
    """
    device, folder = resolved(device, "--device"), RunFolder(Path(recording))
    folder.check_files()
    folder, plan = _opened(folder, attacks, app or App(), allow)
    load_base(folder.path, plan.model)
    plan, rounds = attacking_on(plan, device), _whole_rounds(folder)
    leaks: list[Leak] = []
    failures: list[Measure] = []
    with folder.locked(), threads(plan.config.engine.threads):
        for done, round_ in enumerate(rounds, start=1):
            rows, failed, guesses = attack_round(plan, folder, round_)
            leaks += rows
            failures += failed
            folder.write_guesses(round_, guesses)
            on_round(done, len(rounds))
        table = folder.replace_attacks({part.name for part in attacks}, leaks, failures)
        if plan.config.foreign:
            draw([folder], folder.path / REPORT)
        return table


def _opened(
    folder: RunFolder, attacks: Sequence[Part], app: App, allow: Iterable[str]
) -> tuple[RunFolder, Plan]:
    """Return a recording with its config, and the plan of attacks on it.

    Raises:
        BadRecording: Its config names what is not allowed.
        ConfigError: An attack is wrong, or something of an app is not told or not asked for.
    """
    if is_foreign(folder.path):
        with folder.locked():
            return tell(folder.path, app, attacks, allow=allow)
    if not app.is_empty:
        raise ConfigError(
            f"--model: must go with another app's recording, got {folder.path} of fedsim's own"
        )
    config = on_cpu(folder.config).model_copy(update={"attack": tuple(attacks)})
    folder.check_trusted(allow, given=[part.name for part in attacks], config=config)
    return folder, prepare(config)


def _whole_rounds(folder: RunFolder) -> list[int]:
    """Return the recorded rounds, without one in which the run was killed.

    Raises:
        BadRecording: There is none.
    """
    rounds = recorded_rounds(folder.path)
    if folder.finished_rounds:
        rounds = [number for number in rounds if number <= folder.finished_rounds[-1]]
    if not rounds:
        raise BadRecording(f"{folder.path}: must hold recorded rounds, got none")
    return rounds
