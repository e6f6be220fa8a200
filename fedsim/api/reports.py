"""What is drawn and judged of finished runs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.config import Rule
from fedsim.run.run_folder import REPORT, RunFolder

if TYPE_CHECKING:
    from fedsim.check.gate import Gate


def report(
    runs: Iterable[Path | str],
    out: Path | str | None = None,
    *,
    client: str | None = None,
    figures: Path | str | None = None,
    width: float | None = None,
    allow: Iterable[str] = (),
) -> Path:
    """Draw one run, or compare several, into a self-contained HTML file.

    Args:
        runs: Run folders.
        out: Where to; by default `report.html` in the first.
        client: Whose label counts to draw, of one run; by default the most exposed client's.
        figures: Folder for each figure as SVG, PDF and CSV; none by default.
        width: Of these figures, in inches; by default both columns of a two-column page.
        allow: Folders of ground truth that a config may name, if you did not write it.

    Raises:
        BadRecording: A folder is no run, a file in it is damaged, or its ground truth is not
            allowed.
        ConfigError: A run has no finished round, or there is no such client in it.
    """
    folders = [RunFolder(Path(path)) for path in runs]
    for folder in folders:
        folder.check_bytes()
        folder.check_truth(allow)
    target = Path(out) if out else folders[0].path / REPORT
    draw(folders, target, client=client, figures=figures, width=width)
    return target


def check(
    run: Path | str,
    rules: Sequence[Rule] = (),
    *,
    confidence: float | None = None,
    margin: str | None = None,
) -> "Gate":
    """Hold a run against rules that say what must not be, as `fedsim check`.

    Args:
        run: A run folder, or a folder of `fedsim audit` or `fedsim game`.
        rules: Beside those of the run's config.
        confidence: Of margins of error; the config's if None.
        margin: `ignore`, `lenient` or `strict`, as `check.margin`; the config's if None.

    Returns:
        A verdict per rule. One that the run cannot decide is open, which is no pass.

    Raises:
        ConfigError: There is no rule, a rule is about something that does not exist, or the folder
            holds no results.
        BadRecording: A file is damaged.
    """
    from fedsim.check import gate

    given = {"confidence": confidence, "margin": margin}
    changes = {key: value for key, value in given.items() if value is not None}
    return gate.check(Path(run), rules, changes)


def draw(folders: Sequence[RunFolder], target: Path, **options: Any) -> None:
    """Write a report; what draws it is imported when there is something to draw."""
    from fedsim.report.run import write_report

    write_report(folders, target, **options)
