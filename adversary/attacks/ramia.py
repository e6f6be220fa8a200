"""RaMIA: whether a client trained on any record of a range.

J. Tao, R. Shokri, "Range membership inference attacks", arXiv 2408.05131, 2024. Details follow
the authors' code, Privacy Meter.

Idea: who knows a record in part (entries are missing, or a little off) asks about all records that
it may be. Records of the range are drawn, each gets a membership score, here RMIA's, and the score
of the range is their mean without the lowest and the highest shares.

*Server must know*: as for `rmia`, and the ranges: a label, and bounds of each entry.
*Exact when*: as for `rmia`, for a range of one record.
*Differs from the paper*: the records are auxiliary records of the label, moved to the nearest point
of the range: entries that are known stay, the others come from a record that exists. Privacy
Meter draws them by imputation, from a ball, or by augmentation. `ramia-centre` asks about one
record only, whose missing entries are the mean of all of them: the attack on membership that is
left to who does not know the record.
"""

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.rmia import offline_scores
from adversary.members.ranges import centres, members
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View

GAMMA = 1.0  # rmia's γ


def ramia(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    samples: int = 20,
    lowest: float = 0.5,
    highest: float = 0.0,
    a: float | None = None,
) -> Float[Tensor, " m"]:
    """Return the trimmed mean of the scores of records in every range.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels and ranges; clients are rehearsed with its defense.
        generator: Not used: the same records are drawn for every client and round.
        samples: Records that are drawn from a range, at least 1.
        lowest: Share of a range's scores that is left out from below, in [0, 1).
        highest: Share that is left out from above, in [0, 1); at least one score stays.
        a: How far training on a record raises its likelihood, in [0, 1]; chosen on rehearsed
            clients if None.

    Raises:
        ValueError: The update is not finite, the client told no number of examples, or an option
            is out of range.
    """
    if samples < 1:
        raise NotApplicable(f"samples: must be at least 1, got {samples}")
    if min(lowest, highest) < 0 or lowest + highest >= 1:
        raise NotApplicable(
            "lowest: must not be negative, and below 1 together with highest, "
            f"got {lowest} and {highest}"
        )
    asking = workspace(view, auxiliary).part(members, samples, keep=2)
    values = offline_scores(view, auxiliary, asking, a, GAMMA)
    return trimmed_mean(values.view(-1, samples), lowest, highest)


def ramia_centre(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    a: float | None = None,
) -> Float[Tensor, " m"]:
    """Return the score of the record in the middle of every range.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels and ranges; clients are rehearsed with its defense.
        generator: Not used: the answer is deterministic.
        a: How far training on a record raises its likelihood, in [0, 1]; chosen on rehearsed
            clients if None.

    Raises:
        ValueError: As `ramia`.
    """
    asking = workspace(view, auxiliary).part(centres, keep=2)
    return offline_scores(view, auxiliary, asking, a, GAMMA)


def trimmed_mean(
    values: Float[Tensor, "m samples"], lowest: float, highest: float
) -> Float[Tensor, " m"]:
    """Return the mean of each row without these shares of its smallest and largest values."""
    count = values.shape[1]
    first, last = int(lowest * count), count - int(highest * count)
    return values.sort(dim=1).values[:, min(first, last - 1) : last].mean(dim=1)


ATTACKS = (
    Attack(
        name="ramia",
        family="range",
        on_device=True,
        infer=ramia,
        needs=("inputs", "labels", "ranges"),
        summary="trimmed mean of rmia over records of each range",
        rehearses=True,
        any_optimizer=True,
    ),
    Attack(
        name="ramia-centre",
        family="range",
        on_device=True,
        infer=ramia_centre,
        needs=("inputs", "labels", "ranges"),
        summary="rmia of the record in the middle of each range",
        rehearses=True,
        any_optimizer=True,
    ),
    Attack(
        name="ramia-rounds",
        family="range",
        on_device=True,
        infer=ramia,
        needs=("inputs", "labels", "ranges"),
        summary="ramia, its mean over the rounds so far",
        rehearses=True,
        any_optimizer=True,
        over_rounds=True,
    ),
)
