"""The report: one self-contained HTML file of a run, or of several side by side."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from adversary.families import FAMILIES
from fedsim.errors import ConfigError
from fedsim.files import write_whole
from fedsim.report_page import PAGE
from fedsim.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart without colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedsim",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Curve:
    """One attack's main metric over rounds: mean over clients, 10th and 90th percentile."""

    attack: str
    family: str
    metric: str
    rounds: NDArray[np.int64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    blind: NDArray[np.float64]
    milliseconds: float
    exact: float | None

    @property
    def skill(self) -> float:
        """How much of what the blind guess leaves open the attack finds; 0 is no leakage."""
        open_, found = 1 - self.blind.mean(), self.mean.mean() - self.blind.mean()
        return float(found / open_) if open_ > 0 else 0.0


class _RunData:
    """What a report shows of one run."""

    def __init__(self, folder: RunFolder) -> None:
        self.name = folder.path.absolute().name
        self.folder = folder
        self.ledger = folder.ledger()
        self.metrics = folder.metrics()
        if self.ledger.num_rows + self.metrics.num_rows == 0:
            raise ConfigError(f"{folder.path}: must have a finished round, got none")

    @cached_property
    def curves(self) -> list[Curve]:
        attacks = self.ledger["attack"].unique().to_pylist()
        curves = (_curve(self.ledger.filter(pc.field("attack") == name)) for name in attacks)
        return [curve for curve in curves if curve is not None]

    @cached_property
    def accuracy(self) -> tuple[NDArray, NDArray]:
        return _series(self.metrics, "accuracy")

    @cached_property
    def failures(self) -> list[dict]:
        kinds = pc.or_(
            pc.equal(self.metrics["metric"], "failed"),
            pc.equal(self.metrics["split"], "attack"),
        )
        return self.metrics.filter(kinds).to_pylist()

    @property
    def facts(self) -> dict[str, str]:
        config = self.folder.config
        federation, local, data = config.federation, config.local_training(), config.data
        spread = {"dirichlet": f"(α = {data.alpha:g})", "user": f"({data.users})"}
        return {
            "Data": f"{data.name}, {data.partition} {spread.get(data.partition, '')}",
            "Model": config.model.name,
            "Federation": f"{federation.strategy}, {federation.clients} clients, "
            f"{federation.sampled} per round, {federation.rounds} rounds",
            "Local training": f"lr {local.lr:g}, batch {local.batch_size}, "
            f"{local.epochs} epoch{'s' * (local.epochs > 1)}, uploads {local.upload}",
            "Defenses": " → ".join(_part_text(part) for part in config.defense) or "none",
            "Seed": str(config.seed),
        }


def write_report(folders: Sequence[RunFolder], out: Path) -> None:
    """Draw one run, or several for comparison, into one HTML file without any network.

    Raises:
        BadRecording: A table is missing or damaged.
        ConfigError: A run has no finished round.
        OSError: The file cannot be written.
    """
    import jinja2
    import matplotlib as mpl

    runs = [_RunData(folder) for folder in folders]
    with mpl.rc_context(STYLE):
        pictures = _pictures_of_one(runs[0]) if len(runs) == 1 else _pictures_of_many(runs)
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
    html = page.from_string(PAGE).render(runs=runs, pictures=pictures)
    write_whole(out, lambda file: file.write_text(html, encoding="utf-8"))


def _pictures_of_one(run: _RunData) -> list[tuple[str, str, str]]:
    """Return (title, caption, svg) of a run's pictures."""
    families = list(dict.fromkeys(curve.family for curve in run.curves))
    fig, axes = _panels([2.4] * len(families) + [1.6])
    for axis, family in zip(axes, families, strict=False):
        curves = [curve for curve in run.curves if curve.family == family]
        for curve, colour in zip(curves, COLOURS * 9, strict=False):
            _draw(axis, curve, colour, curve.attack)
        widest = max(curves, key=lambda curve: len(curve.rounds))
        axis.plot(widest.rounds, widest.blind, "--", color="#777777", label="blind guess")
        axis.set_ylabel(f"{family}: {_metric_name(curves[0].metric)}")
        _legend(axis)
    _draw_accuracy(axes[-1], [run])
    caption = (
        "Above: mean over clients, with the band from the 10th to the 90th percentile. The dashed "
        "line is what a server gets that looks at no update; only what lies above it has leaked. "
        "Below: the model's test accuracy in the same rounds."
    )
    pictures = [("Leakage and accuracy over training", caption, _svg(fig))]
    if run.curves:
        best = max(run.curves, key=lambda curve: curve.skill)
        caption = (
            f"Each cell: {_metric_name(best.metric)} by {best.attack}, the attack with the most "
            "skill in this run: a row per client, a column per round. White: not recorded."
        )
        pictures.append(("Who leaks when", caption, _heat_map(run, best)))
    return pictures


def _pictures_of_many(runs: Sequence[_RunData]) -> list[tuple[str, str, str]]:
    names = list(dict.fromkeys(curve.attack for run in runs for curve in run.curves))
    fig, axes = _panels([2.2] * len(names) + [1.8])
    for axis, name in zip(axes, names, strict=False):
        for run, colour in zip(runs, COLOURS * 9, strict=False):
            for curve in run.curves:
                if curve.attack == name:
                    _draw(axis, curve, colour, run.name)
                    axis.plot(curve.rounds, curve.blind, "--", color=colour, linewidth=0.8)
                    axis.set_ylabel(f"{name}: {_metric_name(curve.metric)}")
        _legend(axis)
    _draw_accuracy(axes[-1], runs)
    caption = (
        "One panel per attack, one colour per run; dashed: that run's blind guess. Below: test "
        "accuracy, so that protection and its price are seen together."
    )
    return [("Runs compared", caption, _svg(fig))]


def _curve(rows: pa.Table) -> Curve | None:
    """Return an attack's main metric over rounds, or None where nothing could be graded."""
    family = rows["family"][0].as_py()
    metrics = rows["metric"].unique().to_pylist()
    main = next((m for m in FAMILIES[family].metrics if m in metrics), metrics[0]) \
        if family in FAMILIES else metrics[0]  # fmt: skip
    graded = rows.filter(pc.is_valid(rows["value"]))
    of = graded.filter(pc.equal(graded["metric"], main))
    if of.num_rows == 0:
        return None
    numbers, values = of["round"].to_numpy(), of["value"].to_numpy()
    rounds, place = np.unique(numbers, return_inverse=True)
    groups = [values[place == i] for i in range(len(rounds))]
    blinds = of["blind"].to_numpy()
    exact = graded.filter(pc.equal(graded["metric"], "exact"))
    return Curve(
        attack=of["attack"][0].as_py(),
        family=family,
        metric=main,
        rounds=rounds,
        mean=np.array([group.mean() for group in groups]),
        low=np.array([np.percentile(group, 10) for group in groups]),
        high=np.array([np.percentile(group, 90) for group in groups]),
        blind=np.array([blinds[place == i].mean() for i in range(len(rounds))]),
        milliseconds=1000 * float(np.mean(of["seconds"].to_numpy())),
        exact=pc.mean(exact["value"]).as_py() if exact.num_rows else None,
    )


def _series(table: pa.Table, metric: str) -> tuple[NDArray, NDArray]:
    rows = table.filter(pc.equal(table["metric"], metric))
    return rows["round"].to_numpy(), rows["value"].to_numpy()


def _panels(heights: Sequence[float]) -> "tuple[Figure, list[Axes]]":
    """Return a figure of panels with a common round axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    fig = Figure(figsize=(8.2, sum(heights) + 0.6), layout="constrained")
    axes = fig.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis in axes:
        axis.set_ylim(0, 1.02)
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes[-1].set_xlabel("round")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig, list(axes)


def _draw(axis: "Axes", curve: Curve, colour: str, label: str) -> None:
    marker = "o" if len(curve.rounds) <= 40 else ""
    axis.fill_between(curve.rounds, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)
    axis.plot(curve.rounds, curve.mean, marker=marker, markersize=3.5, color=colour, label=label)


def _draw_accuracy(axis: "Axes", runs: Sequence[_RunData]) -> None:
    for run, colour in zip(runs, ("#333333",) if len(runs) == 1 else COLOURS * 9, strict=False):
        axis.plot(*run.accuracy, color=colour, label=run.name)
    axis.set_ylabel("test accuracy")


def _legend(axis: "Axes") -> None:
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.2)


def _heat_map(run: _RunData, curve: Curve) -> str:
    rows = run.ledger.filter(
        (pc.field("attack") == curve.attack)
        & (pc.field("metric") == curve.metric)
        & pc.field("client").is_valid()
    )
    names = rows["client"].unique().to_pylist()
    names.sort(key=lambda name: (not name.isdigit(), name.zfill(20)))
    place = {name: i for i, name in enumerate(names)}
    column = {int(number): i for i, number in enumerate(curve.rounds)}
    grid = np.full((len(names), len(curve.rounds)), np.nan)
    for row in rows.select(["client", "round", "value"]).to_pylist():
        if row["value"] is not None:
            grid[place[row["client"]], column[row["round"]]] = row["value"]

    from matplotlib.figure import Figure

    fig = Figure(figsize=(8.2, min(8.0, 1.3 + 0.22 * len(names))), layout="constrained")
    axis = fig.subplots()
    image = axis.imshow(
        grid, aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest"
    )
    ticks = range(0, len(names), max(1, len(names) // 25))
    axis.set_yticks(ticks, [names[i] for i in ticks])
    ticks = range(0, len(curve.rounds), max(1, len(curve.rounds) // 20))
    axis.set_xticks(ticks, [str(curve.rounds[i]) for i in ticks])
    axis.set(xlabel="round", ylabel="client")
    axis.grid(visible=False)
    fig.colorbar(image, format=lambda value, _: f"{100 * value:.0f} %")
    return _svg(fig)


def _svg(fig: "Figure") -> str:
    """Return a figure as an SVG element."""
    text = io.StringIO()
    fig.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _metric_name(metric: str) -> str:
    return {"asr": "labels recovered (ASR)"}.get(metric, metric)


def _part_text(part) -> str:
    options = ", ".join(f"{key} = {value}" for key, value in part.options.items())
    return f"{part.name} ({options})" if options else part.name
