"""The report's picture of who leaks when: clients × rounds."""

import numpy as np
from numpy.typing import NDArray

from fedsim.core.units import scale_of
from fedsim.report.curves import Curve
from fedsim.report.data import RunData
from fedsim.report.figures import WIDTH, Picture, metric_name, picture, ticks_of
from fedsim.report.over_rounds import short
from fedsim.report.select import records


def heat_map(run: RunData, curve: Curve) -> Picture:
    """Draw one attack's main metric: a row per client, a column per round."""
    from matplotlib.figure import Figure

    rounds, grid, missing = _grid(run, curve)
    fig = Figure(figsize=(WIDTH, min(8.0, 1.3 + 0.22 * len(grid))), layout="constrained")
    axis = fig.subplots()
    scale = scale_of(curve.metric)
    limits = (scale.low, scale.high) if scale.ends else (np.nanmin(grid), np.nanmax(grid))
    image = axis.imshow(
        grid, aspect="auto", vmin=limits[0], vmax=limits[1], cmap="viridis", interpolation="nearest"
    )
    ticks = range(0, len(grid), max(1, len(grid) // 25))
    axis.set_yticks(ticks, [short(run.clients[i], 20) for i in ticks])
    ticks = range(0, len(rounds), max(1, len(rounds) // 20))
    axis.set_xticks(ticks, [str(rounds[i]) for i in ticks])
    y, x = np.nonzero(missing)
    axis.plot(x, y, "x", color="#888888", markersize=4, scalex=False, scaley=False)
    axis.set(xlabel="round", ylabel="client")
    axis.grid(visible=False)
    fig.colorbar(image, format=ticks_of(curve.metric))
    caption = (
        f"Each cell shows {metric_name(curve.metric)} by {curve.title}, the attack with the "
        "highest skill in this run. Each row is a client, each column is a round. A white cell was "
        "not attacked or cannot be graded."
    )
    if missing.any():
        caption += f" A cross is an update without an answer: the attack {curve.answers.counts}."
    places = [(i, j) for i, j in np.ndindex(*grid.shape) if not np.isnan(grid[i, j])]
    rows = [{"client": run.clients[i], "round": rounds[j], "value": grid[i, j]} for i, j in places]
    return picture("Who leaks when", caption, fig, live=True, rows=rows)


def _grid(run: RunData, curve: Curve) -> tuple[list[int], NDArray, NDArray]:
    """Return the rounds of an attack and, a row per client, its values and where it has none."""
    attempts = records(run.attempts(curve.title))
    rounds = sorted({int(row["round"]) for row in attempts})
    place = {name: i for i, name in enumerate(run.clients)}
    column = {number: i for i, number in enumerate(rounds)}
    grid = np.full((len(place), len(column)), np.nan)
    missing = np.zeros(grid.shape, dtype=bool)
    for row in records(run.values(curve, curve.metric)):
        grid[place[row["client"]], column[row["round"]]] = row["value"]
    for row in attempts:
        if row["outcome"] in ("failed", "refused"):
            missing[place[row["client"]], column[row["round"]]] = True
    return rounds, grid, missing
