"""What one example of each class adds to the head's gradient: mean and covariance, in a sketch.

An example's share of the head's gradient is a ⊗ [h, 1] with a = p − target, far too many numbers
for a covariance. The sketch keeps, for each class's row, the bias entry, the row sum and the row's
projections on the features' principal directions.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from adversary.labels.covariances import Covariances, Mixture, class_means, within_classes
from adversary.labels.head import Forward, HeadGradient, auxiliary_forward, find_head
from adversary.workspace import Workspace
from fedsim.core.types import Auxiliary

DIMENSIONS = 220  # of a sketch, where the number of classes leaves more than one direction; at
# most as many as auxiliary examples, whose covariance says nothing of further ones
CERTAIN = 1e-3  # of a coordinate's spread is its scale where no class has a spread of its own
MANY = 500  # classes, whose rows are sketched by row sum and bias alone
EVEN = "even"  # the key of what was summed for even counts
STAND_INS = 1000  # inputs for all classes without any of their own


@dataclass(frozen=True)
class Sketch:
    """A linear map from a head's gradient to few numbers.

    Attributes:
        directions: Per class, directions in feature space; the rows of a masked head lack the
            entries that are masked. One matrix for all classes where nothing is masked.
        bias: Per class, 1 where the bias entry counts; None for a head without.
        scale: Standard deviation of each varying coordinate within classes, of auxiliary examples.
        varying: Which coordinates vary at all.
    """

    directions: Float[Tensor, "rows features dims"]
    bias: Float[Tensor, " classes"] | None
    scale: Float[Tensor, " varying"]
    varying: Bool[Tensor, " coordinates"]

    def of_gradient(self, head: HeadGradient) -> Float[Tensor, " varying"]:
        """Sketch what was observed."""
        if len(self.directions) == 1:
            rows = head.weight @ self.directions[0]
        else:
            rows = torch.einsum("cd,cdk->ck", head.weight, self.directions)
        if head.bias is not None and self.bias is not None:
            rows = torch.cat([rows, (head.bias * self.bias).unsqueeze(1)], dim=1)
        return rows.flatten()[self.varying] / self.scale

    def scaled(self, raw: Float[Tensor, "n coordinates"]) -> Float[Tensor, "n varying"]:
        """Return sketches of coordinates that vary, scaled, from raw ones."""
        return (raw if bool(self.varying.all()) else raw[:, self.varying]) / self.scale

    def raw(
        self, outputs: Forward, labels: Int[Tensor, " n"], smoothing: float
    ) -> Float[Tensor, "n coordinates"]:
        """Sketch, before coordinates are chosen and scaled."""
        a = residuals(outputs, labels, smoothing)
        return self.joined(a.unsqueeze(2) * self.projected(outputs.features.double()), a)

    def projected(self, features: Float[Tensor, "n features"]) -> Float[Tensor, "n rows dims"]:
        """Return features along the directions of every row, which one row stands for if equal."""
        if len(self.directions) == 1:
            return (features @ self.directions[0]).unsqueeze(1)
        return torch.einsum("nd,cdk->nck", features, self.directions)

    def joined(
        self, rows: Float[Tensor, "n classes dims"], bias: Float[Tensor, "n classes"]
    ) -> Float[Tensor, "n coordinates"]:
        """Return coordinates before they are chosen and scaled, from rows and bias entries."""
        if self.bias is not None:
            rows = torch.cat([rows, (bias * self.bias).unsqueeze(2)], dim=2)
        return rows.flatten(1)

    @cached_property
    def noise(self) -> Float[Tensor, "varying varying"]:
        """The covariance of the coordinates under noise of variance 1 on every entry.

        Coordinates of one row share its entries: where a mask leaves few, they are nearly the same.
        """
        rows = self.directions.mT @ self.directions
        width = self.directions.shape[2] + (self.bias is not None)
        blocks = rows.expand(len(self.varying) // width, -1, -1)
        if self.bias is not None:
            blocks = functional.pad(blocks, (0, 1, 0, 1))
            blocks[:, -1, -1] = self.bias
        return self.scaled(self.scaled(torch.block_diag(*blocks)).T)


@dataclass(frozen=True)
class Moments:
    """Of one example's sketched share, per class.

    Attributes:
        means: Column c is the mean over class c.
        covariances: Within each class.
        counts: Auxiliary examples per class, at least 1.
        kept: What was computed of them once for all updates; never goes with a copy.
    """

    means: Float[Tensor, "varying classes"]
    covariances: Covariances
    counts: Float[Tensor, " classes"]
    kept: dict[object, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def covariance(self, weights: Float[Tensor, " classes"]) -> Float[Tensor, "varying varying"]:
        """Return Σ_c weights_c · covariance_c."""
        return self.covariances.summed(weights)

    def weights(self, counts: Float[Tensor, " classes"]) -> Float[Tensor, " classes"]:
        """Return how much each class's covariance weighs in that of a sum of so many examples.

        Its n examples spread by themselves, and with m auxiliary ones the mean errs: n + n²/m.
        """
        return counts + counts.square() / self.counts

    def even_covariance(self, count: float) -> Float[Tensor, "varying varying"]:
        """Return the covariance of a sum of `count` examples of each class.

        What depends on the classes is summed once for all clients.
        """
        if EVEN not in self.kept:
            parts = torch.ones_like(self.counts), 1 / self.counts
            self.kept[EVEN] = [self.covariance(weights) for weights in parts]
        mean, error = self.kept[EVEN]
        return count * mean + count**2 * error

    def middle(self, other: "Moments") -> "Moments":
        """Return the average of two models' moments: the trapezoid rule along training."""
        both = Mixture(((0.5, self.covariances), (0.5, other.covariances)))
        return Moments((self.means + other.means) / 2, both, self.counts)


def with_every_class(auxiliary: Auxiliary) -> Auxiliary:
    """Give each class without an auxiliary example all the others' inputs, under its own label.

    What a wrong label does to the head depends little on the input that carries it; a class of
    which nothing is known would otherwise seem to do nothing.
    """
    inputs, labels = auxiliary.inputs, auxiliary.labels
    assert inputs is not None
    assert labels is not None
    counts = torch.bincount(labels, minlength=auxiliary.num_classes)
    missing = torch.nonzero(counts == 0)[:, 0]
    if not len(missing):
        return auxiliary
    count = min(len(labels), max(10, STAND_INS // len(missing)))
    some = torch.linspace(0, len(labels) - 1, count).long()
    labels = torch.cat([labels, missing.repeat_interleave(len(some))])
    inputs = torch.cat([inputs, *[inputs[some]] * len(missing)])
    return replace(auxiliary, inputs=inputs, labels=labels)


def start_moments(work: Workspace) -> tuple[Sketch, Moments]:
    """Return sketch and moments of the model sent: a part of the workspace."""
    return fit(
        work.auxiliary,
        work.part(auxiliary_forward),
        work.local.label_smoothing,
        bias=find_head(work).bias is not None,
    )


def fit(
    auxiliary: Auxiliary,
    outputs: Forward,
    smoothing: float,
    *,
    bias: bool,
    mask: tuple[Tensor, Tensor | None] | None = None,
) -> tuple[Sketch, Moments]:
    """Choose a sketch for a model and measure its moments on auxiliary data.

    Args:
        auxiliary: With labels.
        outputs: What the model computes on the auxiliary inputs.
        smoothing: Label smoothing ε.
        bias: Whether the head has one.
        mask: Which entries of the head's weight and bias were uploaded; None for all.
    """
    assert auxiliary.labels is not None
    classes = outputs.logits.shape[1]
    dimensions = min(DIMENSIONS, len(auxiliary.labels))
    principal = max(int(classes <= MANY), dimensions // classes - 1 - bias)
    directions = _directions(outputs.features.double(), principal).unsqueeze(0)
    ones = torch.ones(classes, dtype=torch.float64) if bias else None
    if mask is not None:
        directions = directions * mask[0].double().unsqueeze(2)
        ones = None if mask[1] is None else mask[1].double()
    coordinates = classes * (directions.shape[2] + bias)
    unscaled = Sketch(
        directions, ones, torch.ones(coordinates), torch.ones(coordinates, dtype=torch.bool)
    )
    shares = unscaled.raw(outputs, auxiliary.labels, smoothing)
    scale, varying = scales(shares, auxiliary.labels, classes)
    sketch = Sketch(directions, ones, scale, varying)
    return sketch, measure(shares[:, varying] / scale, auxiliary.labels, classes)


def scales(
    shares: Float[Tensor, "n coordinates"], labels: Int[Tensor, " n"], classes: int
) -> tuple[Float[Tensor, " varying"], Bool[Tensor, " coordinates"]]:
    """Return the spread within classes of each coordinate that varies, and which ones do."""
    scale = _within(shares, labels, classes).square().mean(dim=0).sqrt()
    # What differs between classes and not within, like the bias of a zero head, tells the most.
    overall = shares.std(dim=0, unbiased=False)
    scale = torch.where(scale <= 1e-9 * overall.max(), CERTAIN * overall, scale)
    varying = scale > 1e-9 * scale.max().clamp(min=1e-300)
    return scale[varying], varying


def measure(shares: Float[Tensor, "n varying"], labels: Int[Tensor, " n"], classes: int) -> Moments:
    """Return mean and covariance of sketched shares per class."""
    means, within = within_classes(shares, labels, classes)
    counts = torch.bincount(labels, minlength=classes).double().clamp(min=1)
    return Moments(means.T.contiguous(), within, counts)


def residuals(
    outputs: Forward, labels: Int[Tensor, " n"], smoothing: float
) -> Float[Tensor, "n classes"]:
    """Return p − target for every example."""
    residuals = outputs.probabilities - smoothing / outputs.logits.shape[1]
    residuals[torch.arange(len(labels)), labels] -= 1 - smoothing
    return residuals


def _within(
    shares: Float[Tensor, "n dims"], labels: Int[Tensor, " n"], classes: int
) -> Float[Tensor, "n dims"]:
    """Return each example's distance to the mean of its class."""
    return shares - class_means(shares, labels, classes)[labels]


def _directions(h: Float[Tensor, "n features"], principal: int) -> Float[Tensor, "features dims"]:
    """Return the direction of the row sum and the features' principal directions."""
    features = h.shape[1]
    ones = torch.full((features, 1), features**-0.5, dtype=torch.float64)
    count = min(principal, features)
    if count == 0:
        return ones
    centred = h - h.mean(dim=0)
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors
    return torch.cat([ones, vectors[:, -count:].flip(1)], dim=1)
