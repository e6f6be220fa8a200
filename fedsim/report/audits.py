"""The report of audits: what canaries show of ε, beside what is claimed of the same neighbours."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsim.report.figures import STYLE, WIDTH, Picture, svg
from fedsim.report.frame import write_page
from fedsim.report.over_rounds import BLIND, COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fedsim.audit.table import Row, Told

NAMES = {
    "mu-gdp": "μ-GDP (assumes it is Gaussian)",
    "clopper-pearson-bonferroni": "Clopper–Pearson, any threshold",
    "clopper-pearson": "Clopper–Pearson, at 0",
    "bayes": "Bayes",
}
APART = 0.16  # between the marks of one canary
CLAIM = "#222222"

PAGE = """\
<p class="quiet">A mechanism is run many times with and without a record that gives it away (the
canary). How well the two are told apart by what is uploaded shows an ε that it has at least;
beside it stands what it claims of the same neighbours.</p>
{% for one in told %}
<section><h2>{{ one.setting if told | length > 1 else "Canaries" }}</h2>
<p style="white-space: pre-line">{{ one.claimed }}</p>
{% if one.verdict %}<p class="bad">{{ one.verdict }}.</p>
{% elif one.claim.epsilon is none %}<p>Nothing is claimed that could be refuted.</p>
{% else %}<p>No bound exceeds the claim{% if one.checks %}, and every defense by itself is what it
claims{% endif %}.</p>{% endif %}
{% if one.blunt %}<p>{{ one.blunt }}.</p>{% endif %}
{{ pictures[loop.index0].svg | safe }}
<p class="quiet">{{ pictures[loop.index0].caption }}</p>
<table><tr><th class="text">canary</th><th>Δ/C</th><th>exact</th><th class="text">number</th>
<th class="text">guarantee</th><th>ε</th><th>all together</th><th>claimed</th><th>could show</th>
<th>runs</th></tr>
{% for row in one.rows %}
<tr><td class="text">{{ row.canary }}</td><td>{{ row.apart | number(3) }}</td>
<td>{{ row.exact | number(2) }}</td><td class="text">{{ names[row.method] }}</td>
<td class="text">{{ row.guarantee }}{% if row.confidence %}, {{ "%g" | format(100 * row.confidence)
}} %{% endif %}</td><td><b>{{ row.epsilon | number(2) }}</b></td>
<td{% if row.refutes %} class="bad"{% endif %}>{{ row.joint | number(2) }}</td>
<td>{{ row.claimed | number(2) }}</td><td>{{ row.most | number(2) }}</td><td>{{ row.trials }}</td></tr>
{% endfor %}</table>
{% if one.checks %}<table><tr><th class="text">defense by itself</th><th class="text">measured</th></tr>
{% for check in one.checks %}<tr><td class="text">{{ check.link }}</td>
<td class="text{% if not check.holds %} bad{% endif %}">{{ check.said }}</td></tr>{% endfor %}
</table>{% endif %}
</section>
{% endfor %}
<section><h2>How to read it</h2><p class="quiet"><i>Δ/C</i>: how far the canary moves an update, in
clips; at most 1 for a record that is there or not, 2 for one that is replaced. <i>exact</i>: the ε
of the Gaussian mechanism that is claimed, against this canary. <i>bound</i>: the true ε is at least
as large, at that confidence, each row by itself; <i>all together</i>: at the level at which all
bounds of all settings hold at once, which is what a claim is refuted by. <i>credible</i>: the end
of an interval of a posterior, no bound. <i>could show</i>: the bound if no run had erred: where it
is below the claim, so many runs cannot refute it. Neighbours that are replaced are up to twice as
far apart as those of which one is added or removed: a claim about these says less, and stands
aside.</p></section>
<section><h2>Configs</h2><pre>{{ configs }}</pre></section>
"""


def write_audit_report(told: "Sequence[Told]", out: Path, *, configs: str) -> None:
    """Draw audited settings into one self-contained HTML file.

    Args:
        told: The settings.
        out: The file.
        configs: Their text.

    Raises:
        OSError: The file cannot be written.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        pictures = [_picture(one) for one in told]
    number = lambda value, digits: "–" if value is None else f"{value:.{digits}f}"
    write_page(
        PAGE, out, title="Audit", filters={"number": number}, told=told, pictures=pictures,
        names=NAMES, configs=configs,
    )  # fmt: skip


def _picture(one: "Told") -> Picture:
    """Draw a group of marks per canary, and the claim as a line across."""
    from matplotlib.figure import Figure

    canaries = list(dict.fromkeys(row.canary for row in one.rows))
    methods = [method for method in NAMES if any(row.method == method for row in one.rows)]
    fig = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axis: Axes = fig.subplots()
    for place, method in enumerate(methods):
        rows = {row.canary: row for row in one.rows if row.method == method}
        shift = APART * (place - (len(methods) - 1) / 2)
        x = np.arange(len(canaries)) + shift
        axis.plot(x, [rows[name].epsilon for name in canaries], MARKERS[place],
                  color=COLOURS[place], markerfacecolor=_filled(rows[canaries[0]], place),
                  markersize=6, label=NAMES[method])  # fmt: skip
    exact = [next(row.exact for row in one.rows if row.canary == name) for name in canaries]
    if all(value is not None for value in exact):
        half = APART * len(methods) / 2
        axis.hlines(exact, np.arange(len(canaries)) - half, np.arange(len(canaries)) + half,  # type: ignore[arg-type]
                    color=BLIND, linestyle=":", label="exact, if it is what it claims")  # fmt: skip
    if one.claim.epsilon is not None:
        axis.axhline(one.claim.epsilon, color=CLAIM, linewidth=1.4, label="claimed")
    axis.set_xticks(range(len(canaries)), canaries)
    axis.set_ylabel(f"ε at δ = {one.claim.delta:g}")
    axis.set_ylim(bottom=0)
    axis.grid(visible=False, axis="x")
    fig.legend(loc="outside upper left", ncols=2)
    caption = "Filled: bounds. Hollow: credible. Only a bound above the line refutes the claim."
    return Picture(one.setting, caption, svg(fig))


def _filled(row: "Row", place: int) -> str:
    return COLOURS[place] if row.guarantee == "bound" else "white"
