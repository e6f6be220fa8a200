"""How much noise stands on the rows of an update, as far as the server can tell."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.text.sites import Site
from fedsim.core.params import ulp
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Observation, Params

ARITHMETIC = 8 * 2.0**-24  # rounding of a gradient's entries relative to their row's size


def whitened(
    observation: Observation, site: Site, *, steps: int, noise: float = 0.0
) -> Float[Tensor, "rows width"]:
    """Return a site's rows of the update in units of their noise; rows of zeros are left out.

    Uploaded weights are rounded to float32 in each step, an error of ulp / √12; so is the
    arithmetic of gradients, to a few units in the last place of a row's size.

    Args:
        observation: With the update.
        site: Maps that share an input.
        steps: Local steps.
        noise: Standard deviation of a defense's noise on each entry.
    """
    rows = site.rows(observation.update.delta)
    variance = (ARITHMETIC**2) * rows.square().mean(dim=1) + noise**2
    if observation.local.upload == "weights":
        sent = {
            it.name: observation.sent[it.name] for it in site.weights if it.name in observation.sent
        }
        held = [it.name for it in site.weights if it.name in observation.update.delta]
        weights = site.rows({name: sent[name] for name in held}) + rows
        variance = variance + steps * ulp(weights).square().mean(dim=1) / 12
    moved = rows.any(dim=1)
    return rows[moved] / variance[moved, None].sqrt()


def added_noise(auxiliary: Auxiliary, delta: Params, names: Sequence[str]) -> float:
    """Return the standard deviation of what a known defense makes of an update of zeros.

    Args:
        auxiliary: With the clients' defense.
        delta: An update, for its names and shapes.
        names: Of the parameters whose noise is asked for.
    """
    defense = auxiliary.defense
    assert defense is not None
    nothing = {name: torch.zeros_like(value) for name, value in delta.items()}
    noisy, _ = defense.apply(nothing, defense.init(nothing), generator(0, "text", "noise"))
    entries = torch.cat([noisy[name].double().flatten() for name in names])
    return float(entries.square().mean().sqrt())
