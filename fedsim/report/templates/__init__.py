"""The report's pages as Jinja templates: `base` has the frame and the style, each page extends it.

In: values. Out: HTML that stands alone. The templates are strings in modules because Flower's app
bundle takes .py, .toml, .md, .yaml and .json files only, and a ServerApp writes reports too.
"""

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from fedsim.core.units import written
from fedsim.report.templates import (
    audit,
    base,
    explain,
    explore,
    gallery,
    games,
    parts,
    run,
    script_charts,
    script_map,
    script_tables,
    style,
    tables,
    text_gallery,
)

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = {
    "base": base.TEMPLATE,
    "explore": explore.TEMPLATE,
    "parts": parts.TEMPLATE,
    "run": run.TEMPLATE,
    "tables": tables.TEMPLATE,
    "gallery": gallery.TEMPLATE,
    "text_gallery": text_gallery.TEMPLATE,
    "games": games.TEMPLATE,
    "audit": audit.TEMPLATE,
    "explain": explain.TEMPLATE,
}


@cache
def environment() -> "Environment":
    """Return the environment of all templates, with the filters that write numbers."""
    import jinja2

    pages = jinja2.Environment(
        loader=jinja2.DictLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    pages.globals["style"] = style.STYLE + style.DARK_PICTURES
    pages.globals["script"] = script_tables.SCRIPT
    pages.globals["charts"] = script_charts.SCRIPT + script_map.SCRIPT
    pages.filters["percent"] = lambda value: written("", value)
    pages.filters["of"] = lambda value, metric: written(metric, value)
    pages.filters["number"] = _number
    return pages


def _number(value: Any, digits: int) -> str:
    """Return a number as text; a dash for none."""
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return f"{value:.{digits}f}" if is_number else "–"
