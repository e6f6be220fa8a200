"""How far single examples are recovered above blind, which a mean over examples may hide."""

from collections.abc import Mapping, Sequence

from fedsim.report.data import Curve, RunData
from fedsim.report.intervals import Gap

TEXT = "text"
METRICS: Mapping[str, Sequence[str]] = {
    "reconstruction": ("best_psnr", "match_rate"),
    TEXT: ("exact", "rare_words"),
}


def single_gaps(run: RunData, curve: Curve) -> list[tuple[str, Gap]]:
    """Return each metric of single examples that an attack was graded by, with its gap."""
    names = [name for name in METRICS.get(curve.family, ()) if name in curve.means]
    gaps = [(name, run.gap(curve, name)) for name in names]
    return [(name, gap) for name, gap in gaps if gap is not None]
