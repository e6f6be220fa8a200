"""Norm clipping: bounds the influence of one client's update."""

from torch import Generator, Tensor

from defenses.defense import Defense, State, no_bound
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.params import norm
from fedsim.core.types import Params


def clip(*, bound: float = 1.0, per_layer: bool = False) -> Defense:
    """Scale the update down to Euclidean norm `bound` where it is longer.

    Source: McMahan et al., "Learning Differentially Private Recurrent Language Models",
    ICLR 2018, section 2.2 (flat and per-layer clipping). Promises no privacy by itself.

    Args:
        bound: Largest Euclidean norm; > 0.
        per_layer: Of every tensor by itself, instead of the whole update.

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
        parts = [{name: value} for name, value in params.items()] if per_layer else [params]
        clipped: dict[str, Tensor] = {}
        for part in parts:
            clipped |= _shorter(part, bound)
        return clipped, state

    return Defense(
        name="clip",
        apply=apply,
        promise=Promise(statement="bounds an update's norm; a guarantee only with noise after it"),
        bound=no_bound if per_layer else lambda before: min(before, bound),
    )


def _shorter(params: Params, bound: float) -> dict[str, Tensor]:
    length = float(norm(params))
    if length <= bound:
        return dict(params)
    # A hair less keeps the promise when the scaled entries are rounded in float32.
    scale = bound / length * (1 - 2**-22)
    return {name: value * scale for name, value in params.items()}


DEFENSE = Entry("clip", clip, paper="McMahan, Ramage, Talwar, Zhang, ICLR 2018")
