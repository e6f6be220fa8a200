"""Where a token model multiplies an input by weights: found by calling it, not by names.

The gradient of linear maps that share an input has its rows in the span of that input's vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fedsim.core.types import Params


@dataclass(frozen=True)
class Weight:
    """The weight of one linear map.

    Attributes:
        name: Of the parameter.
        transposed: Whether it is stored as (in, out), as transformers' Conv1D does.
    """

    name: str
    transposed: bool


@dataclass(frozen=True)
class Site:
    """Linear maps that share an input.

    Attributes:
        module: The first module that takes the input.
        weights: Of all of them.
        width: Entries of one vector of the input.
    """

    module: str
    weights: tuple[Weight, ...]
    width: int

    def rows(self, params: Params) -> Float[Tensor, "rows width"]:
        """Return the maps' parameters stacked by rows, float64; of those that are in `params`."""
        parts = [(params[it.name].double(), it) for it in self.weights if it.name in params]
        return torch.cat([value.T if it.transposed else value for value, it in parts])

    def within(self, params: Params) -> bool:
        """Return whether any of its weights is in `params`."""
        return any(it.name in params for it in self.weights)


class _ReachedError(Exception):
    """Ends a forward pass where it has given what is asked for."""


def sites_of(model: nn.Module, ids: Int[Tensor, "n length"]) -> list[Site]:
    """Return the model's linear maps, grouped by input, in the order in which they are called.

    Args:
        model: In evaluation mode.
        ids: Valid token ids.
    """
    calls: list[tuple[str, Weight, Tensor]] = []
    names = {id(value): name for name, value in model.named_parameters()}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            if _is_linear(args, out) and (kind := _orientation(module, args[0], out)) is not None:
                calls.append((name, Weight(names[id(module.weight)], kind), args[0]))

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if _has_matrix(module)
    ]
    try:
        with torch.no_grad():
            model(ids)
    finally:
        for handle in handles:
            handle.remove()
    return _grouped(calls)


def inputs_at(
    model: nn.Module, site: Site, ids: Int[Tensor, "n length"]
) -> Float[Tensor, "n length width"]:
    """Return the vectors that a site's maps take; the model is left there."""
    taken: list[Tensor] = []

    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        taken.append(args[0])
        raise _ReachedError

    handle = model.get_submodule(site.module).register_forward_pre_hook(hook)
    try:
        with torch.no_grad():
            model(ids)
    except _ReachedError:
        pass
    finally:
        handle.remove()
    return taken[0]


def is_causal(model: nn.Module, site: Site, ids: Int[Tensor, "n length"], other: int) -> bool:
    """Return whether what a site takes at a position depends on earlier tokens, and no later one.

    Args:
        model: In evaluation mode.
        site: The site.
        ids: Valid token ids of at least two positions.
        other: A token that is not in them.
    """
    reference = inputs_at(model, site, ids)
    last, first = ids.clone(), ids.clone()
    last[:, -1] = other
    first[:, 0] = other
    later = (inputs_at(model, site, last) - reference)[:, :-1]
    earlier = (inputs_at(model, site, first) - reference)[:, 1:]
    edge = 1e-6 * float(reference.abs().max())
    return float(later.abs().max()) <= edge < float(earlier.abs().max())


def _has_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    is_matrix = isinstance(weight, nn.Parameter) and weight.ndim == 2
    return is_matrix and not isinstance(module, nn.Embedding)


def _is_linear(args: Sequence[object], out: object) -> bool:
    return bool(args) and isinstance(args[0], Tensor) and isinstance(out, Tensor)


def _orientation(module: nn.Module, x: Tensor, out: Tensor) -> bool | None:
    """Return whether a linear map's weight is stored transposed; None of what is none."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    out_in = (out.shape[-1], x.shape[-1])
    shape = (weight.shape[0], weight.shape[1])
    if x.ndim != 3 or shape not in (out_in, out_in[::-1]):
        return None
    if shape[0] != shape[1]:
        return shape != out_in
    # A square one: a bias is constant over positions, and falls out of differences.
    moved, change = (x - x[:, :1]).reshape(-1, x.shape[-1]), out - out[:, :1]
    misfit = [
        float((moved @ matrix - change.reshape(-1, out.shape[-1])).norm())
        for matrix in (weight.T, weight)
    ]
    return misfit[1] < misfit[0]


def _grouped(calls: Sequence[tuple[str, Weight, Tensor]]) -> list[Site]:
    groups: list[tuple[str, list[Weight], Tensor]] = []
    for module, weight, x in calls:
        same = [it for it in groups if it[2].shape == x.shape and torch.equal(it[2], x)]
        if same:
            same[0][1].append(weight)
        else:
            groups.append((module, [weight], x))
    return [Site(module, tuple(weights), x.shape[-1]) for module, weights, x in groups]
