"""Hypotheses sent through the known defense, by its adjoint.

A record z moves a client's update along its gradient g_z, and the defended upload along J g_z; J is
the defense's Jacobian at what clients upload. A score ⟨u, g_z⟩ takes the defense for a factor. With
the hypothesis sent through, it is ⟨u, J g_z⟩ = ⟨Jᵀu, g_z⟩. Every attack reads the update Jᵀu as it
reads others: a secret rotation that the adversary knows is turned back.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adversary.adaptive.corrections import Correct, whiten
from adversary.members.candidates import trained_names
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Observation, Params

COINS = 4  # over which J is averaged, of a defense that draws


def pulled_back(
    plain: Sequence[Observation], defended: Sequence[Observation], auxiliary: Auxiliary
) -> dict[str, Correct]:
    """Return, by name, ways to read an upload with hypotheses that went through the defense.

    Args:
        plain: Rehearsed clients without the defense.
        defended: The same, with it.
        auxiliary: With the defense.

    Returns:
        `back` is Jᵀ(u − m), with m the mean upload; `whiten back` is JᵀΣ⁻¹(u − m), the matched
        filter for J g_z. Nothing where autograd does not see through the defense.
    """
    names = trained_names(auxiliary)
    pull = adjoint([_parts(observation, names) for observation in plain], names, auxiliary)
    if pull is None:
        return {}
    uploaded = [_parts(observation, names) for observation in defended]
    means = [torch.stack(values).mean(dim=0) for values in zip(*uploaded, strict=True)]
    whitened = whiten(uploaded)
    shifted = lambda parts: [part - mean for part, mean in zip(parts, means, strict=True)]
    return {
        "back": lambda parts: pull(shifted(parts)),
        "whiten back": lambda parts: pull(whitened(parts)),
    }


def adjoint(
    plain: Sequence[Sequence[Tensor]], names: Sequence[str], auxiliary: Auxiliary
) -> Correct | None:
    """Return x ↦ Jᵀx, with J the defense's mean Jacobian at the mean of these updates.

    None where J cannot be taken, or is 0 (as of signs).
    """
    defense = auxiliary.defense
    assert defense is not None
    means = [torch.stack(values).mean(dim=0) for values in zip(*plain, strict=True)]
    passes: list[tuple[list[Tensor], list[Tensor]]] = []
    for coin in range(COINS):
        entered = [mean.clone().requires_grad_() for mean in means]
        left = _applied(defense, dict(zip(names, entered, strict=True)), coin)
        if not all(name in left and left[name].requires_grad for name in names):
            return None
        passes.append((entered, [left[name] for name in names]))

    def pull(parts: Sequence[Tensor]) -> list[Tensor]:
        moved = []
        for entered, left in passes:
            into = [part.to(value.dtype) for part, value in zip(parts, left, strict=True)]
            back = torch.autograd.grad(
                left, entered, into, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            moved.append(back)
        return [torch.stack(coins).mean(dim=0) for coins in zip(*moved, strict=True)]

    length = sum(float(part.square().sum()) for part in pull(means))
    return pull if length > 0 else None


def _applied(defense: Any, given: dict[str, Tensor], coin: int) -> Params:
    """Return what the defense makes of tensors that are differentiated; nothing if it cannot."""
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a norm taken as a number: a constant
            return defense.apply(given, defense.init(given), generator(0, "pull back", coin))[0]
    except RuntimeError:  # it leaves torch, or writes over its input
        return {}


def _parts(observation: Observation, names: Sequence[str]) -> list[Tensor]:
    return [observation.update.delta[name] for name in names]
