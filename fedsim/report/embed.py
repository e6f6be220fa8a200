"""What a page's script draws: curves and cells, aggregated until they are small, as safe JSON.

In: runs' tables. Out: text for a `script` element of type `application/json`.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.core.units import scale_of
from fedsim.report.curves import Curve
from fedsim.report.data import RunData
from fedsim.report.exposed import means_at, most_exposed, peaks, rows_of
from fedsim.report.figures import metric_name
from fedsim.report.intervals import Gap

LINES = 36_000  # numbers of all lines together, two characters each
BINS = 120  # points of a line
CELLS = 54_000  # cells of all maps together, two characters each
RUNS = 24  # that are compared line by line
LONGEST = 80  # characters of a name
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MISSING = len(DIGITS) ** 2 - 1  # the code of no number; the largest code is one less

Bins = Sequence[NDArray[np.int64]]


def as_json(value: Any) -> str:
    """Return a value as JSON that ends no element and starts no markup."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def library() -> dict[str, str]:
    """Return the chart library: its version, licence, style and script."""
    file = resources.files("fedsim.report") / "static" / "uplot.json"
    return json.loads(file.read_text(encoding="utf-8"))


def payload(runs: Sequence[RunData]) -> str | None:
    """Return what the script of a report draws; None where there is nothing to draw or too much."""
    curves = [(place, curve) for place, run in enumerate(runs) for curve in run.curves]
    if not curves or len(runs) > RUNS:
        return None
    bins = _bins(curves, max(8, min(BINS, LINES // (4 * len(curves)))))
    return as_json(
        {
            "digits": DIGITS,
            "band": runs[0].band,
            "x": _ends(bins),
            "runs": [{"name": _short(run.label), "accuracy": _accuracy(run)} for run in runs],
            "curves": [{"run": place, **_curve(curve, bins)} for place, curve in curves],
            "map": _map(runs[0]) if len(runs) == 1 else None,
        }
    )


def packed(values: NDArray[np.float64], low: float, high: float) -> str:
    """Return numbers from `low` to `high` as two characters each, to 1/4094 of the range."""
    scale = (MISSING - 1) / ((high - low) or 1.0)
    codes = np.full(len(values), MISSING)
    real = np.isfinite(values)
    codes[real] = np.clip(np.rint((values[real] - low) * scale), 0, MISSING - 1)
    return "".join(DIGITS[code // 64] + DIGITS[code % 64] for code in codes.astype(int).tolist())


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _bins(curves: Sequence[tuple[int, Curve]], most: int) -> Bins:
    """Return all rounds in at most `most` groups of neighbours."""
    rounds = np.unique(np.concatenate([curve.main.rounds for _, curve in curves]))
    return np.array_split(rounds.astype(np.int64), min(most, len(rounds)))


def _ends(bins: Bins) -> list[list[int]]:
    return [[int(of[0]), int(of[-1])] for of in bins]


def _place(rounds: NDArray[Any], bins: Bins) -> NDArray[np.int64]:
    """Return the group of each round."""
    return np.searchsorted([of[-1] for of in bins], rounds)


def _accuracy(run: RunData) -> list[list[float]]:
    """Return rounds and test accuracy, of many every n-th."""
    rounds, values = run.accuracy
    step = max(1, len(rounds) // (2 * BINS))
    pairs = zip(rounds.tolist()[::step], values.tolist()[::step], strict=True)
    return [[round_, round(value, 4)] for round_, value in pairs if np.isfinite(value)]


def _curve(curve: Curve, bins: Bins) -> dict[str, Any]:
    """Return an attack's lines: means of the rounds in each group."""
    series = curve.main
    places = _place(series.rounds, bins)
    lines = {"mean": series.mean, "from": series.low, "to": series.high, "blind": series.blind}
    low, high = _range([*lines.values()])
    return {
        "title": _short(curve.title),
        "family": _short(curve.family),
        "name": metric_name(curve.metric),
        "unit": scale_of(curve.metric).unit,
        "adaptive": curve.adaptive,
        "baseline": curve.baseline,
        "answered": [curve.answers.answered, curve.answers.updates],
        "low": low,
        "high": high,
        **{
            name: packed(means_at(values, places, len(bins)), low, high)
            for name, values in lines.items()
        },
    }


def _range(lines: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    values = np.concatenate(lines)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


def _map(run: RunData) -> dict[str, Any] | None:
    """Return each attack's values by client and round, and in which round each leaked most."""
    gaps = {
        place: c.gap for place, c in enumerate(run.curves) if c.gap and (c.gap.clients >= 0).any()
    }
    if not gaps:
        return None
    names = most_exposed(run.clients, list(gaps.values()))
    rounds = np.unique(np.concatenate([gap.rounds for gap in gaps.values()]))
    most = max(5, min(BINS, CELLS // (len(gaps) * len(names))))
    bins = np.array_split(rounds, min(most, len(rounds)))
    return {
        "x": _ends(bins),
        "clients": [_short(name) for name in names],
        "of": len(run.clients),
        "cells": [{"curve": place, **_cells(gap, names, bins)} for place, gap in gaps.items()],
    }


def _cells(gap: Gap, names: Sequence[str], bins: Bins) -> dict[str, Any]:
    """Return one attack's map: values, and of each client blind, mean and highest round."""
    rows, shown = rows_of(gap, names)
    values, it = (gap.values + gap.blinds)[shown], peaks(gap, names)
    low, high = _range([values, gap.blinds[shown]])
    places = rows * len(bins) + _place(gap.rounds[shown], bins)
    return {
        "low": low,
        "high": high,
        "values": packed(means_at(values, places, len(bins) * len(names)), low, high),
        "blind": packed(it.mean_blinds, low, high),
        "mean": packed(it.means, low, high),
        "rounds": it.counts.tolist(),
        "peak": it.rounds.tolist(),
        "most": packed(it.values, low, high),
        "most_blind": packed(it.blinds, low, high),
    }
