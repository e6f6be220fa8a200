"""The picture of what architectures give away: ranks layer by layer, and the joint spectrum."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.report.figures import STYLE, WIDTH, Picture, svg
from fedsim.report.frame import write_page

if TYPE_CHECKING:
    from fedsim.explain import Explanation

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
OPEN, KNOWN = "#D55E00", "#0072B2"

PAGE = """\
<p class="quiet">Of one example of shape {{ shape }}, to a server that sees one update of it. {{ protocol }}.
Nothing here is a promise: what recursion cannot recover, a joint attack may.</p>
<section><h2>In words</h2>
<table><tr><th class="text">model</th>{% for head in heads %}<th>{{ head }}</th>{% endfor %}
<th class="text">verdict</th></tr>
{% for cells in rows %}<tr><td class="text">{{ cells[0] }}</td>
{% for cell in cells[1:-1] %}<td>{{ cell }}</td>{% endfor %}
<td class="text"><b>{{ cells[-1] }}</b></td></tr>{% endfor %}
</table></section>
{% for picture in pictures %}
<section><h2>{{ picture.title }}</h2>{{ picture.svg | safe }}
<p class="quiet">{{ picture.caption }}</p></section>
{% endfor %}
{% for one in told %}
<section><h2>{{ one.name }}: {{ one.verdict }}</h2>
{% for reason in one.reasons %}<p>{{ reason }}.</p>{% endfor %}
<table><tr><th class="text">layer</th><th>equations</th><th>unknowns</th><th>rank</th><th>open</th>
<th>under no window</th></tr>
{% for it in one.systems %}<tr><td class="text">{{ it.name }} ({{ it.kind }})</td><td>{{ it.rows }}</td>
<td>{{ it.unknowns }}</td><td>{{ it.rank }}</td><td>{{ it.deficiency }}</td><td>{{ it.dead }}</td></tr>
{% endfor %}</table>
{% if one.obstacles %}<p><b>What makes an attack fail:</b></p><table>
{% for it in one.obstacles %}<tr><td class="text">{{ it.name }}</td><td class="text">{{ it.value }}</td>
<td class="text">{{ it.sentence }}</td></tr>{% endfor %}</table>{% endif %}
</section>
{% endfor %}
"""  # noqa: E501


def write_explain_report(
    told: "Sequence[Explanation]",
    out: Path,
    *,
    protocol: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> None:
    """Draw architectures into one self-contained HTML file.

    Args:
        told: The architectures.
        out: The file.
        protocol: How clients train, in words.
        heads: Of the table's columns between name and verdict.
        rows: Its cells.

    Raises:
        OSError: The file cannot be written.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        pictures = [_ranks(told)]
        if any(one.spectrum is not None for one in told):
            pictures.append(_spectra(told))
    write_page(
        PAGE, out, title="What an architecture gives away", told=told,
        pictures=pictures, protocol=protocol, heads=heads, rows=rows,
        shape="×".join(map(str, told[0].shape)),
    )  # fmt: skip


def _ranks(told: "Sequence[Explanation]") -> Picture:
    """Draw the share of its input that each layer's system determines."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 2.1 * len(told) + 0.5), layout="constrained")
    axes = fig.subplots(len(told), 1, squeeze=False)[:, 0]
    for axis, one in zip(axes, told, strict=True):
        names = [it.name for it in one.systems]
        share = [it.rank / it.unknowns for it in one.systems]
        axis.bar(range(len(names)), share, color=KNOWN)
        axis.bar(range(len(names)), [1 - s for s in share], bottom=share, color=OPEN, hatch="//",
                 edgecolor="white", linewidth=0)  # fmt: skip
        for i, it in enumerate(one.systems):
            if it.deficiency:
                axis.text(i, 1.02, f"−{it.deficiency}", ha="center", fontsize=8)
        axis.set_xticks(range(len(names)), names, fontsize=8,
                        rotation=30 if len(names) > 8 else 0,
                        ha="right" if len(names) > 8 else "center")  # fmt: skip
        axis.set_ylim(0, 1.15)
        axis.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        axis.set_title(f"{one.name}: {one.verdict}", loc="left", fontsize=10, fontweight="bold")
        if one.stop:
            axis.text(1, 1.04, "no recursion: see below", transform=axis.transAxes, ha="right",
                      fontsize=8, color="#555555")  # fmt: skip
    caption = (
        "Blue: the share of a layer's input that its own linear system determines, given what lies "
        "behind it, in closed form. Hatched: open. The number is how many are open."
    )
    return Picture("Layer by layer", caption, svg(fig))


def _spectra(told: "Sequence[Explanation]") -> Picture:
    """Draw the singular values of d(gradient)/d(input), by their share of the directions."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axis: Any = fig.subplots()
    for place, one in enumerate(told):
        if one.spectrum is None:
            continue
        seen = one.spectrum
        values = (seen.singular[: seen.rank] / seen.singular[0]).tolist()
        share = [(i + 1) / seen.probed for i in range(len(values))]
        label = f"{one.name}: {seen.rank} of {seen.probed}"
        label += " random" if seen.probed < seen.unknowns else ""
        axis.plot(share, values, color=COLOURS[place % len(COLOURS)], label=label,
                  linestyle=DASHES[place % len(DASHES)])  # fmt: skip
        if seen.rank < seen.probed:
            axis.plot(share[-1:], values[-1:], "x", color=COLOURS[place % len(COLOURS)])
    axis.set_yscale("log")
    axis.set_xlim(0, 1.01)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axis.set(xlabel="directions of the input", ylabel="singular value over the largest")
    axis.legend(loc="lower left")
    caption = (
        "How strongly the gradient answers to each direction of the input, all layers together: "
        "what a joint attack can use. A line that ends before 100 % (×): the other directions are "
        "not seen to change the gradient. Noise hides first what lies lowest."
    )
    return Picture("Jointly", caption, svg(fig))
