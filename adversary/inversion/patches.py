"""The patches of a vision transformer's picture, from the gradient of its position embedding.

J. Lu, X. S. Zhang, T. Zhao, X. He, J. Cheng, "APRIL: Finding the Achilles' heel on privacy for
vision transformers", CVPR 2022 (arXiv 2112.14087).

Positions are added to the tokens z, so that dL/dz of one example is the gradient Δ of the position
embedding. With dL/dz known, every linear map of the tokens or of the patches X gives a linear
system: a patch embedding's gradient is ΔᵀX, and an attention that takes z alone has
zᵀΔ = Σ dWᵀW over its queries, keys and values (the paper's closed form). Where the embedding stands
in a model is found by running it: no name or type is taken for granted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from adversary.workspace import randomise
from fedsim.core.attention import plain_attention
from fedsim.core.boundary import PASSING, explained
from fedsim.core.doubled import doubled
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator

AGREE = 1e-8  # relative difference that is rounding
PIXEL = 0.3  # standard deviation of a pixel, about
GREY = 0.5

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedding:
    """Where a model adds positions to patches.

    Attributes:
        layer: The name of the layer that embeds patches.
        positions: The name of the position embedding.
        rows: Its gradient → one row per token, shape (tokens, width).
        first: The token of the first patch.
        pixels: Which number of the input each entry of each patch is, shape (patches, size).
        readers: Names of the weights that read the tokens and nothing else, as in attention without
            a residual or a norm before it; empty without.
    """

    layer: str
    positions: str
    rows: Callable[[Tensor], Tensor]
    first: int
    pixels: Tensor
    readers: tuple[str, ...] = ()

    @property
    def weight(self) -> str:
        """The name of the weight that embeds patches."""
        return f"{self.layer}.weight"

    def picture(self, patches: Float[Tensor, "p size"], shape: Shape) -> Tensor:
        """Return a picture from its patches; grey where no patch lies."""
        size = torch.Size(shape).numel()
        flat = patches.new_full((size,), GREY)
        flat[self.pixels.flatten()] = patches.flatten()
        return flat.view(1, *shape)


def embedding_of(model: nn.Module, shape: Shape) -> Embedding:
    """Return where a model adds positions to patches.

    Args:
        model: Left as it is.
        shape: Of one input.

    Raises:
        NotApplicable: It does not, or patches overlap; says so.
    """
    trial = _tried(model, shape)
    assert trial.layer is not None
    pixels = _pixels(trial.name, trial.layer, trial.probe, trial.tokens)
    slopes = _tokens(trial.layer, trial.slopes[0])
    for name, slope in trial.gradients.items():
        if name.startswith(f"{trial.name}."):
            continue
        for rows in (_leading, _trailing):
            if (first := _place(rows(slope), slopes)) is not None:
                return Embedding(
                    layer=trial.name,
                    positions=name,
                    rows=rows,
                    first=first,
                    pixels=pixels,
                    readers=trial.readers(rows(slope)),
                )
    raise NotApplicable(
        "patches: a trained position embedding must be added to what "
        f"{trial.name} returns, got none"
    )


def pixels_of(model: nn.Module, shape: Shape) -> Tensor:
    """Return which number of the input each entry of each patch is, shape (patches, size).

    Raises:
        NotApplicable: The first layer embeds no patches, or they overlap.
    """
    trial = _tried(model, shape)
    assert trial.layer is not None
    return _pixels(trial.name, trial.layer, trial.probe, trial.tokens)


def _tried(model: nn.Module, shape: Shape) -> "_Trial":
    """Return an example's trial; refuse a model that has no linear layer first."""
    trial = _Trial(model, shape)
    try:
        trial.run()
    except PASSING:
        raise
    except Exception as error:
        raise NotApplicable(
            f"patches: a gradient of one example must be computable, got {explained(error)}"
        ) from None
    if trial.layer is None:
        raise NotApplicable("patches: the first layer must embed patches, got none that is linear")
    return trial


class _Trial:
    """One example through a model with random weights, and what its parts then have for slopes."""

    def __init__(self, model: nn.Module, shape: Shape) -> None:
        self.model = doubled(model).eval()
        randomise(self.model, generator(0, "april", "weights"))
        self.model.requires_grad_(requires_grad=True)
        self.probe = torch.rand(1, *shape, generator=generator(0, "april"), dtype=torch.float64)
        self.name = ""
        self.layer: nn.Module | None = None
        self.tokens = self.out = torch.zeros(0)
        self.slopes = self.out
        self.gradients: dict[str, Tensor] = {}
        self.calls: list[tuple[str, Tensor]] = []
        self.trained = {n for n, p in model.named_parameters() if p.requires_grad}

    def run(self) -> None:
        """Take the gradients of the tokens and of all parameters."""
        hooks = [
            module.register_forward_hook(self._note(name))
            for name, module in self.model.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.MultiheadAttention))
        ]
        try:
            with torch.enable_grad(), plain_attention():
                logits = self.model(self.probe)
        finally:
            for hook in hooks:
                hook.remove()
        if self.layer is None:
            return
        loss = functional.cross_entropy(logits, torch.zeros(1, dtype=torch.int64))
        parameters = dict(self.model.named_parameters())
        self.slopes, *gradients = torch.autograd.grad(
            loss, [self.out, *parameters.values()], materialize_grads=True
        )
        self.gradients = {
            n: g for n, g in zip(parameters, gradients, strict=True) if n in self.trained
        }

    def _note(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            if not given:
                return
            x, *others = given
            if isinstance(module, nn.MultiheadAttention):
                if len(others) >= 2 and others[0] is x and others[1] is x:
                    self.calls.append((f"{name}.in_proj_weight", x.detach()))
            elif self.layer is None:
                self.name, self.layer, self.tokens, self.out = name, module, x.detach(), out
            elif isinstance(module, nn.Linear):
                self.calls.append((f"{name}.weight", x.detach()))

        return hook

    def readers(self, slope: Tensor) -> tuple[str, ...]:
        """Return the weights for which zᵀΔ = Σ dWᵀW holds, z the tokens with their positions."""
        parameters = dict(self.model.named_parameters())
        calls = [(name, x) for name, x in self.calls if name in self.gradients]
        for _, tokens in calls:
            if tokens.shape != (1, *slope.shape):
                continue
            names = tuple(name for name, x in calls if torch.equal(x, tokens))
            total = sum(self.gradients[n].T @ parameters[n].detach() for n in names)
            if _near(tokens[0].T @ slope, total):
                return names
        return ()


def _near(a: Any, b: Any) -> bool:
    return float((a - b).abs().max()) <= AGREE * float(b.abs().max())


def _leading(slope: Tensor) -> Tensor:
    """Return a row per token of (…, tokens, width)."""
    return slope.reshape(-1, slope.shape[-1]) if slope.ndim > 1 else slope[None]


def _trailing(slope: Tensor) -> Tensor:
    """Return a row per token of (…, width, height, width)."""
    return (
        slope.flatten(-2).reshape(-1, slope.shape[-2] * slope.shape[-1]).T
        if slope.ndim > 2
        else slope[None]
    )


def _tokens(layer: nn.Module, out: Tensor) -> Tensor:
    """Return a row per patch of what the embedding returned."""
    return _trailing(out) if isinstance(layer, nn.Conv2d) else _leading(out)


def _place(rows: Tensor, slopes: Tensor) -> int | None:
    """Return from which row on a gradient is that of the patches."""
    if rows.shape[1:] != slopes.shape[1:] or not bool(slopes.any()):
        return None
    for first in range(len(rows) - len(slopes) + 1):
        if _near(rows[first : first + len(slopes)], slopes):
            return first
    return None


def _pixels(name: str, layer: nn.Module, probe: Tensor, tokens: Tensor) -> Tensor:
    """Return which number of the input each entry of each patch is."""
    numbers = torch.arange(probe.numel(), dtype=torch.float64).view_as(probe)
    if isinstance(layer, nn.Conv2d):
        plain = layer.groups == 1 and tuple(layer.dilation) == (1, 1) and tokens.equal(probe)
        if (
            not plain
            or tuple(layer.stride) != layer.kernel_size
            or layer.padding not in ((0, 0), "valid")
        ):
            raise NotApplicable(f"patches: the patches of {name} = Conv2d must not overlap")
        return functional.unfold(numbers, layer.kernel_size, stride=layer.stride)[0].T.long()
    order = probe.flatten().argsort()
    places = torch.searchsorted(probe.flatten()[order], tokens.flatten())
    places = order[places.clamp(max=len(order) - 1)]
    each_once = len(places.unique()) == tokens.numel()
    if not each_once or not torch.equal(probe.flatten()[places], tokens.flatten()):
        raise NotApplicable(f"patches: {name} = Linear must take the pixels of patches, each once")
    return places.view(-1, tokens.shape[-1])


def solved(
    slopes: Float[Tensor, "tokens width"],
    right: Float[Tensor, "width k"],
    error: float,
    *,
    centre: Tensor | float = GREY,
    spread: float = PIXEL,
) -> Float[Tensor, "tokens k"]:
    """Return the tokens Y of ΔᵀY = R with the least expected error, under noise and a prior.

    Args:
        slopes: Δ.
        right: R.
        error: Standard deviation of an entry of R.
        centre: The prior's mean.
        spread: The prior's standard deviation.
    """
    left, values, turned = torch.linalg.svd(slopes, full_matrices=False)
    apart = (
        right - slopes.T @ torch.full_like(slopes[:, :1].expand(-1, right.shape[1]), 1.0) * centre
    )
    ratio = values / (values.square() + (error / spread) ** 2).clamp(
        min=torch.finfo(values.dtype).tiny
    )
    return centre + left @ (ratio[:, None] * (turned @ apart))
