"""The picture of what architectures give away: ranks layer by layer, and the joint spectrum."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.report.figures import STYLE, WIDTH, Picture, svg
from fedsim.report.page import write_page

if TYPE_CHECKING:
    from fedsim.explain import Explanation

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
OPEN, DETERMINED = "#D55E00", "#0072B2"


def write_explain_report(
    models: "Sequence[Explanation]",
    out: Path,
    *,
    protocol: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> None:
    """Draw architectures into one self-contained HTML file.

    Args:
        models: The architectures.
        out: The file.
        protocol: How clients train, in words.
        heads: Of the table's columns between name and verdict.
        rows: Its cells.

    Raises:
        OSError: The file cannot be written.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        pictures = [_ranks(models)]
        if any(model.spectrum is not None for model in models):
            pictures.append(_spectra(models))
    write_page(
        "explain",
        out,
        title="What an architecture gives away",
        models=models,
        pictures=pictures,
        protocol=protocol,
        heads=heads,
        rows=rows,
        shape="×".join(map(str, models[0].shape)),
    )


def _ranks(models: "Sequence[Explanation]") -> Picture:
    """Draw the share of its input that each layer's system determines."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 2.1 * len(models) + 0.5), layout="constrained")
    axes = fig.subplots(len(models), 1, squeeze=False)[:, 0]
    for axis, model in zip(axes, models, strict=True):
        names = [it.name for it in model.systems]
        share = [it.rank / it.unknowns for it in model.systems]
        axis.bar(range(len(names)), share, color=DETERMINED)
        hatched = {"color": OPEN, "hatch": "//", "edgecolor": "white", "linewidth": 0}
        axis.bar(range(len(names)), [1 - s for s in share], bottom=share, **hatched)
        for i, it in enumerate(model.systems):
            if it.deficiency:
                axis.text(i, 1.02, f"−{it.deficiency}", ha="center", fontsize=8)
        rotation, side = (30, "right") if len(names) > 8 else (0, "center")
        axis.set_xticks(range(len(names)), names, fontsize=8, rotation=rotation, ha=side)
        axis.set_ylim(0, 1.15)
        axis.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        axis.set_title(
            f"{model.name}: {model.verdict.text}", loc="left", fontsize=10, fontweight="bold"
        )
        if model.stop:
            corner = {"transform": axis.transAxes, "ha": "right"}
            axis.text(1, 1.04, "no recursion: see below", fontsize=8, color="#555555", **corner)
    caption = (
        "Blue is the share of a layer's input that its own linear system determines, in closed "
        "form, if everything behind the layer is known. Hatched is open. The number above a bar "
        "counts the open entries."
    )
    return Picture("Layer by layer", caption, svg(fig))


def _spectra(models: "Sequence[Explanation]") -> Picture:
    """Draw the singular values of d(gradient)/d(input), by their share of the directions."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axis: Any = fig.subplots()
    for place, model in enumerate(models):
        if model.spectrum is None:
            continue
        spectrum = model.spectrum
        values = (spectrum.singular[: spectrum.rank] / spectrum.singular[0]).tolist()
        share = [(i + 1) / spectrum.probed for i in range(len(values))]
        label = f"{model.name}: {spectrum.rank} of {spectrum.probed}"
        label += " random" if spectrum.probed < spectrum.unknowns else ""
        colour, dash = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
        axis.plot(share, values, color=colour, label=label, linestyle=dash)
        if spectrum.rank < spectrum.probed:
            axis.plot(share[-1:], values[-1:], "x", color=colour)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(lambda *_: "")
    axis.set_xlim(0, 1.01)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axis.set(xlabel="directions of the input", ylabel="singular value over the largest")
    axis.legend(loc="lower left")
    caption = (
        "The line shows how strongly the gradient answers to each direction of the input, over all "
        "layers together. A joint attack can use this. If a line ends before 100 % (×), the other "
        "directions do not change the gradient. Noise hides the lowest directions first."
    )
    return Picture("Jointly", caption, svg(fig))
