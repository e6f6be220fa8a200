"""The report's section on audits: ε in theory against what canaries show of it, over rounds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import defenses
from adversary.auditing.coins import FRESH
from adversary.auditing.finding import Guarantee
from adversary.auditing.in_rounds import IN_ROUNDS
from clients import carried
from fedsim.core.errors import ConfigError
from fedsim.core.tables import frame
from fedsim.report.data import RunData
from fedsim.report.figures import WIDTH, Picture, percent, picture
from fedsim.report.over_rounds import COLOURS, MARKERS
from fedsim.report.select import records, select
from fedsim.run.ledger import AUDIT
from fedsim.run.notes import note_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Theory against audit"
ROOM = 1.35  # the panel reaches so far beyond theory; what lies higher is drawn at its edge
LINES = {Guarantee.BOUND: "-", Guarantee.CREDIBLE: "--", Guarantee.ESTIMATE: ":"}
REFUTED = "#B00020"


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page shows of a run's audits.

    Attributes:
        silent: Methods that have nothing to say of the last audited round, and why.
    """

    title: str
    picture: Picture | None
    round: int
    lines: list[Line]
    silent: list[str]


def audit_section(run: RunData, *, drawn: bool = True) -> Section | None:
    """Return theory against audit over a run's rounds; None where nothing was audited.

    Args:
        run: Of which.
        drawn: With its picture.
    """
    metrics = select(frame(run.metrics), split=AUDIT)
    if metrics.empty:
        return None
    last = int(metrics["round"].to_numpy().max())
    measured = {row["metric"]: row for row in records(select(metrics, round=last))}
    graded = select(frame(run.audits).dropna(subset="value"), round=last)
    rows = {row["attack"]: row for row in records(graded)}
    return Section(
        title=TITLE,
        picture=_draw(run) if drawn else None,
        round=last,
        lines=[_line(rows[name], measured) for name in IN_ROUNDS if name in rows],
        silent=[
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
        method=name.removeprefix(f"{AUDIT}-"),
        how=method.how.format(counted),
        guarantee=str(guarantee),
        assumes=assumes,
        epsilon=f"{sign} {row['value']:.3g}",
        theory=f"{row['ceiling']:.3g}",
        trials=f"{trials.get('value') or 0:.0f}",
        most="–" if limit is None else f"{limit:.3g}",
        exceeds=guarantee is Guarantee.BOUND and row["value"] > row["ceiling"],
    )


def _caption(run: RunData) -> str:
    config = run.folder.config
    try:
        promise = carried.promise_of(defenses.build(config.defense))
    except ConfigError:  # of a user's own, which a report does not import
        promise = None
    if promise is None:
        return "The black line is the ε that the clients' defense claims."
    audit, delta = config.audit, config.audit.delta or promise.delta
    sure = f"{100 * audit.confidence:g} %"
    counted = (
        f"{audit.clients} clients that consented, each with its update as a canary"
        if promise.relation == carried.UPDATE
        else f"{audit.clients} clients that consented, each with {audit.records} canary records"
    )
    return (
        f"The black line is the ε that the clients' defense claims at δ = {delta:g}, for "
        f"neighbours “{promise.relation}” and the client that took part most "
        f"({promise.mechanism}). The coloured lines are audits with {counted}. Each point uses all "
        f"uploads until its round. A bound (markers) is below the true ε in at least {sure} of "
        f"audits, for each point alone. A credible bound (dashed) holds with {sure} under a prior. "
        "An estimate (dotted) may be above or below the true ε. A ring marks a bound above the "
        "claim; with many points, a few rings can occur although the claim is true. ▲ marks points "
        "above the panel. The lower panel shows the largest share of members that a test can find "
        "at a false positive rate of 1 %, if theory is right. Its dashed line is a guess without "
        "any update."
    )


def _draw(run: RunData) -> Picture:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    fig = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.3])
    _draw_epsilon(upper, run)
    _draw_rate(lower, run)
    lower.set_xlabel("round")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return picture(TITLE, _caption(run), fig)


def _draw_epsilon(axis: "Axes", run: RunData) -> None:
    rounds, theory = _measured(run, "epsilon_theory")
    top = ROOM * float(max(theory, default=1.0)) or 1.0
    graded = frame(run.audits).dropna(subset="value")
    for place, (name, method) in enumerate(IN_ROUNDS.items()):
        guarantee = method.guarantee
        rows = select(graded, attack=name)
        if rows.empty:
            continue
        at, values = rows["round"].to_numpy(), rows["value"].to_numpy()
        colour, bound = COLOURS[place % len(COLOURS)], guarantee is Guarantee.BOUND
        axis.plot(
            at,
            np.where(values > top, np.nan, values),
            LINES[guarantee],
            color=colour,
            marker=MARKERS[place] if bound or len(at) == 1 else "",
            markersize=4,
            lw=1.3,
            label=f"{name.removeprefix('audit-')} ({guarantee})",
        )
        beyond = values > top
        edge = (0.97 if bound else 0.92) * top  # no estimate hides a bound
        axis.plot(at[beyond], np.full(beyond.sum(), edge), "^", color=colour, markersize=6)
        above = bound & (values > rows["ceiling"].to_numpy())
        ring = {"markersize": 9, "color": REFUTED, "fillstyle": "none", "zorder": 4}
        axis.plot(at[above], np.minimum(values[above], 0.97 * top), "o", **ring)
    axis.plot(rounds, theory, "k-", lw=2.2, label="theory", marker="." if len(rounds) == 1 else "")
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(
        handles[-1:] + handles[:-1],
        labels[-1:] + labels[:-1],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
    )
    axis.set_ylim(-0.02 * top, top)
    axis.set_ylabel("ε")


def _draw_rate(axis: "Axes", run: RunData) -> None:
    rounds, allowed = _measured(run, "tpr_allowed")
    dot = "." if len(rounds) == 1 else ""
    axis.plot(rounds, allowed, "k-", lw=1.6, marker=dot, label="theory allows")
    audited, rates = _measured(run, "tpr_audited")
    if len(audited):
        axis.plot(audited, rates, "-o", color=COLOURS[0], markersize=4, label="audit's own test")
    axis.axhline(0.01, ls="--", lw=1, color="#555555", label="blind guess")
    axis.set_ylim(0, 1.02)
    axis.yaxis.set_major_formatter(percent)
    axis.set_ylabel("TPR at 1 % FPR")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _measured(run: RunData, metric: str) -> tuple[np.ndarray, np.ndarray]:
    rows = select(frame(run.metrics), split=AUDIT, metric=metric)
    return rows["round"].to_numpy(), rows["value"].to_numpy()
