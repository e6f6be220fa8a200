"""Figures as papers need them: each as SVG and PDF of a column's width, and its numbers as CSV."""

import csv
import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.core.files import write_whole
from fedsim.report.figures import STYLE, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = 7.0  # inches: both columns of a two-column page
NARROWEST, WIDEST = 3.0, 20.0
SMALL = 7.5  # points: the text of a narrow figure
PRINT: dict[Any, Any] = {**STYLE, "pdf.fonttype": 42}  # text stays text
FIELDS = ("panel", "series", "kind", "x", "y", "low", "high")

Row = Mapping[str, Any]


def write_figures(pictures: Sequence[Picture], folder: Path, *, width: float = PAGE) -> list[Path]:
    """Write each picture that has a figure as NAME.svg, NAME.pdf and NAME.csv.

    The CSV has a row per point that is drawn: `panel` is the label of its axis, `series` the line's
    name, `kind` line, band, point, bar or cell; bands have `low` and `high` in place of `y`.

    Args:
        pictures: The pictures of a page.
        folder: Where to; it is made.
        width: Of the figures, in inches.

    Returns:
        The files.

    Raises:
        OSError: A file cannot be written.
    """
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    paths, names = [], set()
    for picture in pictures:
        if (figure := picture.figure) is None:
            continue
        name = _name(picture.title, names)
        rows = picture.rows if picture.rows is not None else list(points(figure))
        with mpl.rc_context(PRINT), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            _fit(figure, width)
            for ending, metadata in (("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
                paths.append(folder / f"{name}.{ending}")
                write_whole(paths[-1], partial(_save, figure, ending, metadata))
        paths.append(folder / f"{name}.csv")
        text = _csv(rows)
        write_whole(paths[-1], lambda file, text=text: file.write_text(text, encoding="utf-8"))
    return paths


def points(figure: "Figure") -> Iterator[Row]:
    """Yield what is drawn in a figure, panel by panel."""
    for axis in figure.axes:
        panel = axis.get_ylabel().replace("\n", " ") or axis.get_title(loc="left")
        if title := (axis.get_title(loc="left") or axis.get_title()):
            panel = f"{title}: {axis.get_ylabel()}"
        texts = _texts(axis)
        for row in (*_lines(axis), *_bands(axis), *_scattered(axis), *_bars(axis)):
            x = row["x"]
            yield {"panel": panel, **row, "x": texts.get(round(x), x) if texts and x != "" else x}


def _lines(axis: "Axes") -> Iterator[Row]:
    for line in axis.lines:
        label, kind = str(line.get_label()), "line"
        across, _ = line.get_transform().contains_branch_seperately(axis.transData)
        if not across:  # from edge to edge
            height = float(np.asarray(line.get_ydata())[0])
            yield {"series": _series(label), "kind": kind, "x": "", "y": height}
            continue
        for x, y in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True):
            if np.isfinite([x, y]).all():
                yield {"series": _series(label), "kind": kind, "x": float(x), "y": float(y)}


def _bands(axis: "Axes") -> Iterator[Row]:
    from matplotlib.collections import PolyCollection

    for band in axis.collections:
        if not isinstance(band, PolyCollection):
            continue
        label = _series(str(band.get_label()))
        for path in band.get_paths():  # fill_between: a corner, one edge, a corner, the other edge
            corners = np.asarray(path.vertices)
            number = (len(corners) - 3) // 2
            lower, upper = corners[1 : number + 1], corners[number + 2 : 2 * number + 2][::-1]
            for (x, low), (_, high) in zip(lower.tolist(), upper.tolist(), strict=True):
                ends = {"low": min(low, high), "high": max(low, high)}
                yield {"series": label, "kind": "band", "x": x, **ends}


def _scattered(axis: "Axes") -> Iterator[Row]:
    from matplotlib.collections import PathCollection

    for group in axis.collections:
        if isinstance(group, PathCollection):
            for x, y in np.asarray(group.get_offsets()).tolist():
                yield {"series": _series(str(group.get_label())), "kind": "point", "x": x, "y": y}


def _bars(axis: "Axes") -> Iterator[Row]:
    from matplotlib.container import BarContainer

    for bars in axis.containers:
        if isinstance(bars, BarContainer):
            for bar in bars.patches:
                x, y = bar.get_x() + bar.get_width() / 2, bar.get_height()
                yield {"series": _series(str(bars.get_label())), "kind": "bar", "x": x, "y": y}


def _texts(axis: "Axes") -> dict[float, str]:
    """Return what stands at places of an axis whose ticks are names; none of numbers."""
    from matplotlib.ticker import FixedFormatter

    formatter = axis.xaxis.get_major_formatter()
    if not isinstance(formatter, FixedFormatter):
        return {}
    labels = [str(text) for text in formatter.seq]
    return dict(zip(np.asarray(axis.get_xticks(), float).tolist(), labels, strict=False))


def _series(label: str) -> str:
    """Return a line's name; those that no legend lists start with an underscore."""
    return "" if re.fullmatch(r"_child\d+", label) else label.removeprefix("_")


def _fit(figure: "Figure", width: float) -> None:
    """Give a figure a column's width, and lay it out anew."""
    old, height = figure.get_size_inches()
    figure.set_layout_engine("constrained")
    for axis in figure.axes:
        axis.set_in_layout(True)  # which their positions on the page had ended
    if width < 0.6 * old:
        for axis in figure.axes:
            _above(axis)
        for text in figure.findobj(lambda artist: hasattr(artist, "set_fontsize")):
            text.set_fontsize(min(SMALL, text.get_fontsize()))  # pyright: ignore[reportAttributeAccessIssue]
    figure.set_size_inches(width, height * max(width / old, 0.7))


def _above(axis: "Axes") -> None:
    """Put a legend that stands beside its panel over it."""
    legend = axis.get_legend()
    if legend is None or legend.get_bbox_to_anchor() is None:
        return
    labels = [text.get_text() for text in legend.get_texts()]
    axis.legend(
        [handle for handle in legend.legend_handles if handle is not None],
        labels,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2,
        fontsize=SMALL,
        borderaxespad=0.2,
    )


def _save(figure: "Figure", ending: str, metadata: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending, metadata=metadata)
    path.write_bytes(buffer.getvalue())


def _csv(rows: Sequence[Row]) -> str:
    keys = dict.fromkeys(key for row in rows for key in row)
    fields = [name for name in FIELDS if name in keys] + [k for k in keys if k not in FIELDS]
    text = io.StringIO()
    table = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _name(title: str, taken: set[str]) -> str:
    """Return a file's name for a title, another than those taken."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    stem = re.sub("[^a-z0-9]+", "-", plain)[:60].strip("-") or "figure"
    name = next(it for i in count(1) if (it := stem if i == 1 else f"{stem}-{i}") not in taken)
    taken.add(name)
    return name
