"""The report of audits: what canaries show of ε, beside what is claimed of the same neighbours."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adversary.auditing import METHODS
from fedsim.report.figures import STYLE, WIDTH, Picture, svg
from fedsim.report.over_rounds import BLIND, COLOURS, MARKERS
from fedsim.report.page import write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fedsim.audit.result import AuditResult
    from fedsim.audit.rows import Row

NAMES = {name: method.title for name, method in METHODS.items() if method.of_runs}
SELDOM = "repeats"  # drawn only where it shows something
APART = 0.12  # between the marks of one canary
CLAIM = "#222222"


def write_audit_report(audits: "Sequence[AuditResult]", out: Path, *, configs: str) -> None:
    """Draw audited settings into one self-contained HTML file.

    Args:
        audits: The settings.
        out: The file.
        configs: What is not the default in theirs, as text.

    Raises:
        OSError: The file cannot be written.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        pictures = [_picture(audit) for audit in audits]
    write_page(
        "audit",
        out,
        title="Audit",
        audits=audits,
        pictures=pictures,
        names=NAMES,
        configs=configs,
    )


def _picture(audit: "AuditResult") -> Picture:
    """Draw a group of marks per canary, and the claim as a line across."""
    from matplotlib.figure import Figure

    canaries = list(dict.fromkeys(row.canary for row in audit.rows))
    methods = [
        method
        for method in NAMES
        if any(row.method == method and (row.epsilon or method != SELDOM) for row in audit.rows)
    ]
    fig = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axis: Axes = fig.subplots()
    for place, method in enumerate(methods):
        rows = {row.canary: row for row in audit.rows if row.method == method}
        shift = APART * (place - (len(methods) - 1) / 2)
        x = np.arange(len(canaries)) + shift
        axis.plot(
            x,
            [rows[name].epsilon for name in canaries],
            MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
            color=_colour(place),
            markerfacecolor=_filled(rows[canaries[0]], place),
            markersize=6,
            label=NAMES[method],
        )
    exact = [next(row.exact for row in audit.rows if row.canary == name) for name in canaries]
    levels = [value for value in exact if value is not None]
    if len(levels) == len(exact):
        half = APART * len(methods) / 2
        middle: Any = np.arange(len(canaries))
        style: dict[str, Any] = {
            "color": BLIND,
            "linestyle": ":",
            "label": "exact, if it is what it claims",
        }
        axis.hlines(levels, middle - half, middle + half, **style)
    if audit.claim.epsilon is not None:
        axis.axhline(audit.claim.epsilon, color=CLAIM, linewidth=1.4, label="claimed")
    axis.set_xticks(range(len(canaries)), canaries)
    axis.set_ylabel(f"ε at δ = {audit.claim.delta:g}")
    axis.set_ylim(bottom=0)
    axis.grid(visible=False, axis="x")
    fig.legend(loc="outside upper left", ncols=2)
    caption = (
        "Filled marks are bounds, hollow marks are credible. Only a bound above the line refutes "
        "the claim."
    )
    return Picture(audit.setting, caption, svg(fig))


def _filled(row: "Row", place: int) -> str:
    return _colour(place) if row.guarantee == "bound" else "white"


def _colour(place: int) -> str:
    """Return a method's colour; those that share one have other marks."""
    return COLOURS[place % len(COLOURS)]
