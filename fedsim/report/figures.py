"""What the report's pictures are drawn on: panels, their scales, and SVG."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedsim.core.units import name_of, scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.2
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedsim",
    "text.parse_math": False,  # a `$` in a name is a `$`
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


class Picture(NamedTuple):
    """A section of the page.

    Attributes:
        live: Whether the script draws the same in its place.
        figure: What `svg` was made from; None without a picture.
        rows: Its numbers, where they cannot be read off the figure.
    """

    title: str
    caption: str
    svg: str = ""
    live: bool = False
    figure: "Figure | None" = None
    rows: Sequence[Mapping[str, Any]] | None = None


def picture(title: str, caption: str, fig: "Figure", **more: Any) -> Picture:
    """Return a figure as a section of the page."""
    return Picture(title, caption, svg(fig), figure=fig, **more)


def svg(fig: "Figure") -> str:
    """Return a figure as an SVG element, the same for the same figure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has its own fonts
        return _svg(fig)


def _svg(fig: "Figure") -> str:
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    for axis in fig.axes:  # the layout's solver differs in the last bit from call to call
        left, bottom, width, height = np.round(axis.get_position().bounds, 5).tolist()
        axis.set_position((left, bottom, width, height))
    text = io.StringIO()
    fig.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


def panels(heights: Sequence[float]) -> "tuple[Figure, list[Axes]]":
    """Return a figure of panels in percent with a common round axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    fig = Figure(figsize=(WIDTH, sum(heights) + 0.6), layout="constrained")
    axes = fig.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis in axes:
        axis.set_ylim(0, 1.02)
        axis.yaxis.set_major_formatter(percent)
    axes[-1].set_xlabel("round")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return fig, list(axes)


def panels_of(count: int) -> "tuple[Figure, list[Axes]]":
    """Return a figure of `count` equal panels, both axes in percent."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 3.6 * count + 0.4), layout="constrained")
    axes = fig.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        axis.xaxis.set_major_formatter(percent)
        axis.yaxis.set_major_formatter(percent)
    return fig, list(axes)


def fit(axis: "Axes", metric: str) -> None:
    """Let a panel reach as far as what is drawn in it, where its metric has no ends."""
    low, high = axis.dataLim.intervaly
    if not scale_of(metric).ends and np.isfinite([low, high]).all():
        low, high = min(0.0, low), max(0.0, high)
        room = 0.08 * (high - low or 1.0)
        axis.set_ylim(low - room * (low < 0), high + room)
    axis.yaxis.set_major_formatter(ticks_of(metric))


def metric_name(metric: str) -> str:
    """Return what a metric is called in pictures."""
    return "labels recovered (ASR)" if metric == "asr" else name_of(metric)


def percent(value: float, _: Any = None) -> str:
    """Return a share as a tick's text."""
    return f"{100 * value:.0f} %"


def ticks_of(metric: str) -> Callable[[float, Any], str]:
    """Return what writes a tick's text on the scale of a metric."""
    unit = scale_of(metric).unit
    return percent if unit == "%" else lambda value, _: f"{value:g} {unit}".rstrip()
