"""The report: one self-contained HTML file of a run, or of several side by side."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from fedsim.core.catalog import nothing_imported
from fedsim.core.errors import ConfigError
from fedsim.report.audit_rounds import audit_section
from fedsim.report.counts import counts_picture
from fedsim.report.curves import Curve
from fedsim.report.data import RunData
from fedsim.report.defenses import Defended, trade_off
from fedsim.report.differences import labels_of
from fedsim.report.embed import library, payload
from fedsim.report.exposed import exposed
from fedsim.report.figures import STYLE, Picture
from fedsim.report.gallery import galleries
from fedsim.report.heat_map import heat_map
from fedsim.report.over_rounds import over_rounds, side_by_side
from fedsim.report.page import write_page
from fedsim.report.papers import NARROWEST, PAGE, WIDEST, write_figures
from fedsim.report.repeats import Repeats, over_seeds
from fedsim.report.settings import against_settings
from fedsim.report.text_gallery import text_galleries
from fedsim.report.verdict import verdict
from fedsim.report.warnings import groups, remarks, warnings
from fedsim.run.run_folder import RunFolder

MOST_LINES = 8  # runs that can be told apart as lines


def write_report(
    folders: Sequence[RunFolder],
    out: Path,
    *,
    client: str | None = None,
    with_pictures: bool = True,
    figures: Path | str | None = None,
    width: float | None = None,
) -> list[Path]:
    """Draw one run, or several for comparison, into one HTML file without any network.

    Nothing that a config names is imported.

    Args:
        folders: The runs.
        out: The file.
        client: Whose label counts to draw; the most exposed client's if None.
        with_pictures: Whether recovered examples are shown beside the originals.
        figures: Folder for each figure as SVG, PDF and CSV; none if None.
        width: Of these figures, in inches; both columns of a two-column page if None.

    Returns:
        The files of figures.

    Raises:
        BadRecording: A table, an answer or a truth is missing or damaged.
        ConfigError: A run has no finished round, or there is no such client in it.
        OSError: The file cannot be written.
    """
    if client is not None and len(folders) > 1:
        raise ConfigError(f"--client: must go with one run, got {len(folders)} runs")
    if width is not None and not NARROWEST <= width <= WIDEST:
        rule = f"must be from {NARROWEST:g} to {WIDEST:g} inches"
        raise ConfigError(f"--width: {rule}, got {width:g}")
    if width is not None and figures is None:
        raise ConfigError("--width: must go with --figures, got no folder")
    with nothing_imported():
        pictures = _write(folders, out, client, with_pictures=with_pictures)
    return write_figures(pictures, Path(figures), width=width or PAGE) if figures else []


def _write(
    folders: Sequence[RunFolder], out: Path, client: str | None, *, with_pictures: bool
) -> list[Picture]:
    """Write the page, and return its pictures."""
    import matplotlib as mpl

    runs = [RunData(folder) for folder in folders]
    single = len(runs) == 1
    labels = labels_of([run.folder.config for run in runs], [run.name for run in runs])
    for run, label in zip(runs, labels, strict=True):
        run.label = run.name if single else label
    settings = over_seeds(runs)  # a run each, or those of one setting with several seeds together
    with mpl.rc_context(STYLE):
        sections = [(run, audit_section(run, drawn=single)) for run in runs]
        pictures = _of_run(runs[0], client) if single else _of_several(settings)
    write_page(
        "run",
        out,
        runs=runs,
        pictures=pictures,
        verdicts=[(run, verdict(run)) for run in runs],
        tiles=_tiles(runs[0]),
        payload=payload(settings),
        repeats=[it for it in settings if isinstance(it, Repeats)],
        library=library(),
        exposed=exposed(runs[0]) if single else [],
        notices=_notices(runs),
        groups=groups,
        defended=[Defended(run) for run in runs if not single or run.folder.config.defense],
        galleries=galleries(runs[0]) if single and with_pictures else [],
        text_galleries=text_galleries(runs[0]) if single and with_pictures else [],
        audits=[(run, section) for run, section in sections if section],
    )
    audited = [section.picture for _, section in sections if section and section.picture]
    return [*pictures, *audited]


def _notices(runs: Sequence[RunData]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return warnings and remarks: a style class, and each sentence once, with its runs' names."""
    notices = []
    for style, sentences in (("warning", warnings), ("warning note", remarks)):
        said: dict[str, list[str]] = {}
        for run in runs:
            for sentence in sentences(run):
                said.setdefault(sentence, []).append(run.label)
        notices.append(
            (style, [(_names(labels, runs), sentence) for sentence, labels in said.items()])
        )
    return notices


def _names(labels: Sequence[str], runs: Sequence[RunData]) -> str:
    return "All runs" if len(labels) == len(runs) else ", ".join(labels)


def _of_several(runs: Sequence[RunData]) -> list[Picture]:
    """Return the pictures that compare runs: of many, only their sums."""
    if len(runs) == 1:
        return [over_rounds(runs[0])] if runs[0].curves else []
    compared = trade_off([Defended(run) for run in runs])
    lines = [side_by_side(runs)] if len(runs) <= MOST_LINES else []
    return [*([compared] if compared else []), *against_settings(runs), *lines]


def _of_run(run: RunData, client: str | None) -> list[Picture]:
    """Return a run's pictures."""
    counts = counts_picture(run, client)
    by_client = (curve for curve in run.leaders() if not run.values(curve, curve.metric).empty)
    heat = [heat_map(run, curve) for curve in islice(by_client, 1)]
    return [over_rounds(run), *heat, *([counts] if counts else [])]


def _tiles(run: RunData) -> list[Curve]:
    """Return four attacks for the top of a page: the best of each family, then the next best."""
    first = [run.leaders(family)[0] for family in run.families]
    return [*first, *(curve for curve in run.leaders() if curve not in first)][:4]
