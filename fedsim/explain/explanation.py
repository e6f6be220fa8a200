"""What one architecture gives away, as a record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adversary.inversion.identifiability import System
from adversary.inversion.jacobian import Spectrum
from adversary.inversion.obstacles import Obstacle
from fedsim.explain.verdict import Verdict

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """What one architecture gives away.

    Attributes:
        name: The architecture's name in the config.
        shape: Shape of one input.
        parameters: Number of trained parameters.
        systems: One per convolution and linear layer, from the input on.
        others: Layers with parameters that have no such closed form, by name and type.
        metric: c(M) of a chain that has convolutions; None of any other model.
        stop: Why a recursion cannot walk back through the model; None if it can.
        spectrum: Singular values of J; None if no direction was looked at.
        psnr: What one upload of one example allows at best, in dB; None if not computed.
        obstacles: What makes a reconstruction fail under the protocol.
        verdict: What is recoverable, and why.
        plan: Which reconstructions `auto-reconstruct` would try, and why.
        labels: Which attacks read labels of which part of an update, a sentence each.
        seconds: Time of the closed forms.
    """

    name: str
    shape: Shape
    parameters: int
    systems: Sequence[System]
    others: Sequence[str]
    metric: float | None
    stop: str | None
    spectrum: Spectrum | None
    psnr: float | None
    obstacles: Sequence[Obstacle]
    verdict: Verdict
    plan: str
    labels: Sequence[str]
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "model": self.name,
            "input": list(self.shape),
            "parameters": self.parameters,
            "verdict": self.verdict.text,
            "kind": self.verdict.kind,
            "reasons": list(self.verdict.reasons),
            "c": self.metric,
            "stops_at": self.stop,
            "auto_reconstruct": self.plan,
            "labels": list(self.labels),
            "layers": [{**vars(it), "deficiency": it.deficiency} for it in self.systems],
            "no_closed_form": list(self.others),
            "jacobian": None if self.spectrum is None else _jacobian(self.spectrum),
            "psnr": self.psnr,
            "obstacles": [vars(it) for it in self.obstacles],
            "seconds": self.seconds,
        }


def _jacobian(spectrum: Spectrum) -> dict[str, Any]:
    return {
        "rank": spectrum.rank,
        "probed": spectrum.probed,
        "unknowns": spectrum.unknowns,
        "largest": float(spectrum.singular[0]),
        "smallest": float(spectrum.singular[max(spectrum.rank, 1) - 1]),
        "condition": spectrum.condition,
        "sketched": spectrum.sketched,
        "hidden": None if spectrum.hidden is None else len(spectrum.hidden),
        "weights": spectrum.weights,
        "seconds": spectrum.seconds,
    }
