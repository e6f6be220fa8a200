"""The report's section on audits: ε in theory against what canaries show of it, over rounds."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

import defenses
from adversary.auditing.coins import FRESH
from adversary.auditing.finding import Guarantee
from adversary.auditing.in_rounds import IN_ROUNDS
from clients import carried
from fedsim.report.data import RunData
from fedsim.report.figures import WIDTH, percent, svg
from fedsim.report.over_rounds import COLOURS, MARKERS
from fedsim.run.ledger import AUDIT
from fedsim.run.notes import note_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOM = 1.35  # the panel reaches so far beyond theory; what lies higher is drawn at its edge
LINES = {Guarantee.BOUND: "-", Guarantee.CREDIBLE: "--", Guarantee.ESTIMATE: ":"}
REFUTED = "#B00020"


@dataclass(frozen=True)
class Line:
    """One method in the last audited round, in words.

    Attributes:
        most: The most that so many trials could have shown; a dash where there is no limit.
        exceeds: Whether a bound is above what theory claims.
    """

    method: str
    how: str
    guarantee: str
    assumes: str
    epsilon: str
    theory: str
    trials: str
    most: str
    exceeds: bool


@dataclass(frozen=True)
class Section:
    """What the page shows of a run's audits.

    Attributes:
        silent: Methods that have nothing to say of the last audited round, and why.
    """

    title: str
    svg: str
    caption: str
    round: int
    lines: list[Line]
    silent: list[str]


def audit_section(run: RunData, *, drawn: bool = True) -> Section | None:
    """Return theory against audit over a run's rounds; None where nothing was audited.

    Args:
        run: Of which.
        drawn: With its picture.
    """
    graded = run.audits.filter(pc.field("value").is_valid())
    told = run.metrics.filter(pc.field("split") == AUDIT)
    if not told.num_rows:
        return None
    last = int(pc.max(told["round"]).as_py())
    measured = {row["metric"]: row for row in told.filter(pc.field("round") == last).to_pylist()}
    rows = graded.filter(pc.field("round") == last).to_pylist()
    order = list(IN_ROUNDS)
    rows.sort(key=lambda row: order.index(row["attack"]))
    return Section(
        "Theory against audit",
        _draw(run) if drawn else "",
        _caption(run),
        last,
        [_line(row, measured) for row in rows],
        [
            f"{note.attack.removeprefix('audit-')} ({note.reason})"
            for row in measured.values()
            if (note := note_of(row))
        ],
    )


def _line(row: dict, measured: dict[str, dict]) -> Line:
    name, method = row["attack"], IN_ROUNDS[row["attack"]]
    guarantee = method.guarantee
    trials, most = (measured.get(f"{name}_{what}", {}) for what in ("trials", "most"))
    assumes = trials.get("reason") or "nothing"
    counted = "single uploads: ε of one round" if FRESH in assumes else "clients' sums"
    sign = "≈" if guarantee is Guarantee.ESTIMATE else "≥"
    limit = most.get("value")
    return Line(
        name.removeprefix(f"{AUDIT}-"),
        method.how.format(counted),
        str(guarantee),
        assumes,
        f"{sign} {row['value']:.3g}",
        f"{row['ceiling']:.3g}",
        f"{trials.get('value') or 0:.0f}",
        "–" if limit is None else f"{limit:.3g}",
        guarantee is Guarantee.BOUND and row["value"] > row["ceiling"],
    )


def _caption(run: RunData) -> str:
    config = run.folder.config
    promise = carried.promise_of(defenses.build(config.defense))
    assert promise is not None
    asked, delta = config.audit, config.audit.delta or promise.delta
    sure = f"{100 * asked.confidence:g} %"
    counted = (
        f"{asked.clients} clients that consented, each with its update as a canary"
        if promise.relation == carried.UPDATE
        else f"{asked.clients} clients that consented, each with {asked.records} canary records"
    )
    return (
        f"Solid black: the ε that the clients' defense claims at δ = {delta:g} for neighbours "
        f"“{promise.relation}”, of the client that took part most ({promise.mechanism}). In "
        f"colour: what was found with {counted}, from all uploads until that round. A bound with "
        f"markers is below the true ε in at least {sure} of such audits, every point by itself; a "
        f"credible one (dashed) holds with {sure} under a prior; an estimate (dotted) may lie on "
        "either side. A ring marks a bound above what is claimed, as one in many points is even of "
        "a true claim; ▲ stands for points beyond the panel. Below: the most members that any test "
        "of membership can name at a false positive rate of 1 %, if theory is right; dashed: what "
        "a guess without any update names."
    )


def _draw(run: RunData) -> str:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    fig = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.3])
    _draw_epsilon(upper, run)
    _draw_rate(lower, run)
    lower.set_xlabel("round")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return svg(fig)


def _draw_epsilon(axis: "Axes", run: RunData) -> None:
    rounds, theory = _measured(run, "epsilon_theory")
    top = ROOM * float(max(theory, default=1.0)) or 1.0
    for place, (name, method) in enumerate(IN_ROUNDS.items()):
        guarantee = method.guarantee
        rows = run.audits.filter((pc.field("attack") == name) & pc.field("value").is_valid())
        if not rows.num_rows:
            continue
        at, values = rows["round"].to_numpy(), rows["value"].to_numpy()
        colour, bound = COLOURS[place % len(COLOURS)], guarantee is Guarantee.BOUND
        axis.plot(
            at, np.where(values > top, np.nan, values), LINES[guarantee], color=colour,
            marker=MARKERS[place] if bound or len(at) == 1 else "", markersize=4, lw=1.3,
            label=f"{name.removeprefix('audit-')} ({guarantee})",
        )  # fmt: skip
        beyond = values > top
        edge = (0.97 if bound else 0.92) * top  # no estimate hides a bound
        axis.plot(at[beyond], np.full(beyond.sum(), edge), "^", color=colour, markersize=6)
        above = bound & (values > rows["ceiling"].to_numpy())
        axis.plot(
            at[above], np.minimum(values[above], 0.97 * top), "o", markersize=9, color=REFUTED,
            fillstyle="none", zorder=4,
        )  # fmt: skip
    axis.plot(rounds, theory, "k-", lw=2.2, label="theory", marker="." if len(rounds) == 1 else "")
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[-1:] + handles[:-1], labels[-1:] + labels[:-1], loc="upper left",
                bbox_to_anchor=(1.0, 1.0))  # fmt: skip
    axis.set_ylim(-0.02 * top, top)
    axis.set_ylabel("ε")


def _draw_rate(axis: "Axes", run: RunData) -> None:
    rounds, allowed = _measured(run, "tpr_allowed")
    dot = "." if len(rounds) == 1 else ""
    axis.plot(rounds, allowed, "k-", lw=1.6, marker=dot, label="theory allows")
    seen, found = _measured(run, "tpr_audited")
    if len(seen):
        axis.plot(seen, found, "-o", color=COLOURS[0], markersize=4, label="audit's own test")
    axis.axhline(0.01, ls="--", lw=1, color="#555555", label="blind guess")
    axis.set_ylim(0, 1.02)
    axis.yaxis.set_major_formatter(percent)
    axis.set_ylabel("TPR at 1 % FPR")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _measured(run: RunData, metric: str) -> tuple[np.ndarray, np.ndarray]:
    rows = run.metrics.filter((pc.field("split") == AUDIT) & (pc.field("metric") == metric))
    return rows["round"].to_numpy(), rows["value"].to_numpy()
