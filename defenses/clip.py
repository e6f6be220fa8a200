"""Norm clipping: bounds the influence of one client's update."""

from torch import Generator, Tensor

from defenses.defense import Defense, State
from fedsim.params import norm
from fedsim.types import Params


def clip(*, bound: float = 1.0) -> Defense:
    """Scale the whole update down to Euclidean norm `bound` where it is longer.

    Source: McMahan et al., "Learning Differentially Private Recurrent Language Models",
    ICLR 2018, section 2.2 (flat clipping). Promises no privacy by itself.

    Args:
        bound: Largest Euclidean norm of an update; > 0.

    Raises:
        ValueError: `bound` is not positive.
    """
    if not bound > 0:
        raise ValueError(f"bound: must be > 0, got {bound}")

    def apply(
        params: Params,
        state: State,
        generator: Generator,  # noqa: ARG001
    ) -> tuple[dict[str, Tensor], State]:
        length = float(norm(params))
        if length <= bound:
            return dict(params), state
        # A hair less keeps the promise when the scaled entries are rounded in float32.
        scale = bound / length * (1 - 2**-22)
        return {name: value * scale for name, value in params.items()}, state

    return Defense("clip", apply)
