"""How gradients are matched."""

from dataclasses import dataclass
from typing import Literal

from adversary.inversion.distances import Distance
from adversary.inversion.priors import Start
from fedsim.core.errors import NotApplicable


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to match.

    Attributes:
        distance: Of a simulated upload and the observed one: one minus their cosine, the squared
            distance over the squared length of the observed one, or the same of absolute values.
        optimiser: "lbfgs", or "adam", or "signed" for Adam on the gradient's signs.
        iterations: Evaluations of the loss, for each restart.
        restarts: Rows.
        lr: Of Adam at the beginning, in units of the inputs.
        tv: Weight of the total variation.
        falls: Whether Adam's weight of the total variation falls to `tv` on the way, and its rate
            along a cosine (`continuation`); else the weight stays, and the rate falls in steps.
        energy: Weight of the mean square.
        group: Weight of the distance between restarts.
        norms: Weight of the distance from what is known of batch norms (`batch_norms`).
        marked: Weight of one minus the cosine of the problem's marked entries.
        seams: Weight of the jumps between patches, of models that take patches.
        late: Share of the way from which total variation and seams count.
        prior: What guesses are written as, see `priors.form_of`.
        box: Whether points are kept in the range of the data on their way.
        start: Where restarts begin, see `priors.pixels`.
    """

    distance: Distance = "cosine"
    optimiser: Literal["lbfgs", "adam", "signed"] = "signed"
    iterations: int = 1000
    restarts: int = 8
    lr: float = 0.1
    tv: float = 0.0
    falls: bool = False
    energy: float = 0.0
    group: float = 0.0
    norms: float = 0.0
    marked: float = 0.0
    seams: float = 0.0
    late: float = 0.0
    prior: str = "pixels"
    box: bool = True
    start: Start = "uniform"

    def __post_init__(self) -> None:
        for name in ("iterations", "restarts"):
            if getattr(self, name) < 1:
                raise NotApplicable(f"{name}: must be at least 1, got {getattr(self, name)}")
        for name in ("tv", "energy", "group", "norms", "marked", "seams", "late"):
            if not getattr(self, name) >= 0:
                raise NotApplicable(f"{name}: must be at least 0, got {getattr(self, name)}")
        if not self.lr > 0:
            raise NotApplicable(f"lr: must be above 0, got {self.lr}")
