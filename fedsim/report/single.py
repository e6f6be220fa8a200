"""How far single examples are recovered above blind, which a mean over examples may hide."""

from collections.abc import Mapping, Sequence

from fedsim.core.units import written
from fedsim.report.curves import Curve
from fedsim.report.data import RunData
from fedsim.report.intervals import Gap

TEXT, MATCH_RATE = "text", "match_rate"
METRICS: Mapping[str, Sequence[str]] = {
    "reconstruction": ("best_psnr", MATCH_RATE),
    TEXT: ("exact", "rare_words"),
}


def single_gaps(run: RunData, curve: Curve) -> list[tuple[str, Gap]]:
    """Return each metric of single examples that an attack was graded by, with its gap."""
    names = [name for name in METRICS.get(curve.family, ()) if name in curve.means]
    gaps = [(name, run.gap(curve, name)) for name in names]
    return [(name, gap) for name, gap in gaps if gap is not None]


def match_sentence(run: RunData, attack: str) -> str:
    """Return how many examples an attack's answers pick, with an interval; empty where none could.

    Args:
        run: The run.
        attack: The attack's title.
    """
    curves = [curve for curve in run.curves if curve.title == attack]
    gap = run.gap(curves[0], MATCH_RATE) if curves else None
    if gap is None or not gap.blinds.all():  # a recording of when blind was the mean picture's rate
        return ""
    chance, interval = float(gap.blinds.mean()), gap.interval()
    rate, by_chance = (written(MATCH_RATE, value) for value in (chance + gap.mean, chance))
    text = (
        f"Match rate: {rate} of the examples are picked, from {round(1 / chance, 1):,g} candidates "
        f"for each, it and others of the data set; {by_chance} is chance"
    )
    if interval is None:
        return f"{text}."
    low, high = (written(MATCH_RATE, min(1.0, max(0.0, chance + end))) for end in interval)
    return f"{text}. The 95 % interval over {gap.over} is {low} to {high}."
