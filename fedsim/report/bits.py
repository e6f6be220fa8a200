"""Axes of bits: values below 0 bound nothing, and must not squash those above."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BELOW = 0.15  # part of the axis below 0, in units of what is above


def lowest_shown(most: float) -> float:
    """Return where an axis of bits starts that reaches up to `most`."""
    return -BELOW * most


def mark_below(
    axis: "Axes",
    places: Iterable[float],
    values: Iterable[float],
    most: float | None,
    color: str,
    fill: str,
) -> None:
    """Mark values below an axis of bits by triangles at its foot; does nothing for `most` None.

    Args:
        axis: The panel.
        places: Where the values stand.
        values: In bits.
        most: What the axis reaches up to.
        color: Of the triangles' edges.
        fill: Of what is inside.
    """
    if most is None:
        return
    foot = lowest_shown(most)
    for place, value in zip(places, values, strict=True):
        if value < foot:
            axis.plot(place, 0.85 * foot, "v", color=color, mfc=fill, ms=6, zorder=4, clip_on=False)
