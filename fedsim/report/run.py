"""The report: one self-contained HTML file of a run, or of several side by side."""

from collections.abc import Sequence
from pathlib import Path

from fedsim.core.errors import ConfigError
from fedsim.core.files import write_whole
from fedsim.core.units import written
from fedsim.report.audit_rounds import audit_section
from fedsim.report.counts import counts_picture
from fedsim.report.data import RunData
from fedsim.report.defenses import Defended, trade_off
from fedsim.report.figures import STYLE, Picture
from fedsim.report.gallery import galleries
from fedsim.report.over_rounds import heat_map, over_rounds, side_by_side
from fedsim.report.page import PAGE
from fedsim.report.settings import against_settings
from fedsim.report.warnings import groups, remarks, warnings
from fedsim.run.run_folder import RunFolder

MOST_LINES = 8  # runs that can be told apart as lines


def write_report(folders: Sequence[RunFolder], out: Path, *, client: str | None = None) -> None:
    """Draw one run, or several for comparison, into one HTML file without any network.

    Args:
        folders: The runs.
        out: The file.
        client: Whose label counts to draw; without it, the most exposed client's.

    Raises:
        BadRecording: A table, an answer or a truth is missing or damaged.
        ConfigError: A run has no finished round, or there is no such client in it.
        OSError: The file cannot be written.
    """
    import jinja2
    import matplotlib as mpl

    if client is not None and len(folders) > 1:
        raise ConfigError(f"--client: must go with one run, got {len(folders)} runs")
    runs = [RunData(folder) for folder in folders]
    with mpl.rc_context(STYLE):
        found = [(run, audit_section(run, drawn=len(runs) == 1)) for run in runs]
        pictures = _of_one(runs[0], client) if len(runs) == 1 else _of_several(runs)
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["percent"] = lambda value: written("", value)
    page.filters["of"] = lambda value, metric: written(metric, value)
    defended = [Defended(run) for run in runs if len(runs) > 1 or run.folder.config.defense]
    page.filters["number"] = lambda value, digits: "–" if value is None else f"{value:.{digits}f}"
    said = [
        (kind, [(run.name, sentence) for run in runs for sentence in of(run)])
        for kind, of in (("warning", warnings), ("warning note", remarks))
    ]
    html = page.from_string(PAGE).render(
        runs=runs, pictures=pictures, said=said, groups=groups, defended=defended,
        galleries=galleries(runs[0]) if len(runs) == 1 else [],
        audits=[(run, section) for run, section in found if section],
    )  # fmt: skip
    write_whole(out, lambda file: file.write_text(html, encoding="utf-8"))


def _of_several(runs: Sequence[RunData]) -> list[Picture]:
    """Return the pictures that compare runs: of many, only their sums."""
    compared = trade_off([Defended(run) for run in runs])
    lines = [side_by_side(runs)] if len(runs) <= MOST_LINES else []
    return [*([compared] if compared else []), *against_settings(runs), *lines]


def _of_one(run: RunData, client: str | None) -> list[Picture]:
    """Return a run's pictures."""
    counts = counts_picture(run, client)
    heat = [heat_map(run, run.leaders()[0])] if run.curves else []
    return [over_rounds(run), *heat, *([counts] if counts else [])]
