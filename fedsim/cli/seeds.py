"""`fedsim run --seeds`: one setting with several seeds, each an ordinary run."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from fedsim.cli.sweep import run_cells
from fedsim.core.errors import ConfigError


def repeat(
    config: Path | None,
    settings: Sequence[str],
    count: int,
    target: Path | None,
    *,
    strict: bool,
    as_json: bool,
) -> None:
    """Run a setting with `count` seeds, each in a folder of its own, and report on all together.

    Args:
        config: TOML file; the defaults if None.
        settings: `key=value`, on top of it.
        count: How many seeds, from the setting's own on.
        target: Folder of the runs; finished ones in it are kept, stopped ones go on. None for a new
            one under runs/.
        strict: Refuse a run in which no attack of a family gave an answer.
        as_json: Print one JSON object instead of lines.

    Raises:
        ConfigError: The setting is wrong, or `target` is a run itself.
        NoAnswer: With `strict`, in one of the runs.
        RunStopped: A run failed.
    """
    from fedsim import api
    from fedsim import config as configs
    from fedsim.run import outcomes
    from fedsim.run.glance import is_run

    cells = configs.seeds(config, settings, count)
    folder = target or api.new_folder(cells[0].config)
    if is_run(folder):
        raise ConfigError(
            f"--out: must be a folder for runs of several seeds, got the run {folder}"
        )
    given = [str(config)] if config else []
    given += [word for setting in settings for word in ("--set", setting)]
    command = shlex.join(["fedsim", "run", *given, "--seeds", str(count), "--out", str(folder)])
    results = run_cells(cells, folder, again=f"continue with: {command}", as_json=as_json)
    if strict:
        for answers in results.values():
            outcomes.check_answered(answers)
