"""Gradients of many rows of inputs at once: each row is a batch of its own.

A small model's time goes into the number of operations, not into their size. Here all rows go
through the model together. Where they share its weights, each layer runs once over all of them, and
only its weight gradient is taken row by row, from its input and the slope at its output; where
every row has weights of its own (after a local step), layers run in groups. All of it can be
differentiated again. A model with parameters anywhere else than in linear layers, two-dimensional
convolutions and group or batch normalisation goes through row by row: `torch.func.vmap` takes 3
CPU-seconds when first used, and gradients of layer normalisation through it cannot be trusted to be
differentiated again (off by 5 % with torch 2.15).
"""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from adversary.inversion.row_layers import NotLayeredError, OwnLayers, SharedLayers
from fedsim.core.attention import plain_attention
from fedsim.core.types import Params

Statistics = dict[str, tuple[Tensor, Tensor]]
"""Batch norms by name → mean and unbiased variance of their inputs, (*rows, channels) each."""


def cross_entropy(
    logits: Float[Tensor, "*rows batch classes"], targets: Float[Tensor, "*rows batch classes"]
) -> Float[Tensor, "*rows"]:
    """Return the mean over each batch of −Σ_c target·log softmax."""
    return -(targets * logits.log_softmax(dim=-1)).sum(dim=-1).mean(dim=-1)


def still(model: nn.Module) -> nn.Module:
    """Return a copy in training mode, whose dropout is off and which overwrites nothing."""
    copied = copy.deepcopy(model).train().requires_grad_(requires_grad=False)
    for module in copied.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
        if hasattr(module, "inplace"):  # would overwrite what gradients are taken at
            module.inplace = False  # type: ignore[assignment]
    return copied


class Rows:
    """A model that takes gradients of the mean cross-entropy of many rows.

    It is in training mode, as clients are; only dropout is off, because nobody knows its masks.

    Args:
        model: The architecture; it is copied.
        state: Its parameters and buffers.
        names: The parameters that are differentiated, in this order.
    """

    def __init__(self, model: nn.Module, state: Params, names: Sequence[str]) -> None:
        self.model = still(model)
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(state[name])
        parameters = dict(self.model.named_parameters())
        self.weights = {name: parameters[name].detach() for name in names}
        self.dtype = next(iter(self.weights.values())).dtype
        self.layered = True
        self.norms = {
            id(module.running_mean): name
            for name, module in self.model.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and module.running_mean is not None
        }

    def gradients(
        self,
        inputs: Float[Tensor, "rows batch *shape"],
        targets: Float[Tensor, "rows batch classes"],
        weights: Params | None = None,
        *,
        differentiable: bool = True,
        statistics: Statistics | None = None,
    ) -> list[Tensor]:
        """Return the gradient of each row's loss, (rows, *parameter shape) per parameter.

        Args:
            inputs: A batch per row.
            targets: Probabilities of classes.
            weights: By name, (rows, *parameter shape), where rows have their own.
            differentiable: Whether what is returned will be differentiated.
            statistics: Filled with those of the inputs of batch norms, by their names, where rows
                share the weights and go through the model together.
        """
        with torch.enable_grad(), plain_attention():
            if self.layered:
                try:
                    if weights is None:
                        return self._shared(
                            inputs, targets, statistics, differentiable=differentiable
                        )
                    return self._per_row(inputs, targets, weights, differentiable=differentiable)
                except NotLayeredError:
                    self.layered = False
            return self._looped(inputs, targets, weights, differentiable=differentiable)

    def _shared(
        self,
        inputs: Tensor,
        targets: Tensor,
        statistics: Statistics | None,
        *,
        differentiable: bool,
    ) -> list[Tensor]:
        rows, weights = len(inputs), self.weights
        collected = None if statistics is None else dict[int, tuple[Tensor, Tensor]]()
        with SharedLayers(weights, rows, collected) as layers:
            logits = functional_call(self.model, weights, (inputs.flatten(0, 1),))
        if statistics is not None and collected is not None:
            statistics |= {self.norms[key]: value for key, value in collected.items()}
        total = cross_entropy(logits.unflatten(0, inputs.shape[:2]), targets).sum()
        if any(tap[0]._version != tap[1] for tap in layers.taps):  # overwritten in place
            raise NotLayeredError
        slopes = torch.autograd.grad(
            total, [tap[0] for tap in layers.taps], create_graph=differentiable, allow_unused=True
        )
        gradients: dict[str, Tensor] = {}
        for (_, _, backward), slope in zip(layers.taps, slopes, strict=True):
            for name, value in backward(slope) if slope is not None else ():
                gradients[name] = gradients[name] + value if name in gradients else value
        return [
            gradients[name].view(rows, *value.shape)
            if name in gradients
            else value.new_zeros(rows, *value.shape)
            for name, value in weights.items()
        ]

    def _per_row(
        self, inputs: Tensor, targets: Tensor, weights: Params, *, differentiable: bool
    ) -> list[Tensor]:
        at = {n: w if w.requires_grad else w.detach().requires_grad_() for n, w in weights.items()}
        with OwnLayers(at, len(inputs)):
            logits = functional_call(self.model, at, (inputs.flatten(0, 1),))
        total = cross_entropy(logits.unflatten(0, inputs.shape[:2]), targets).sum()
        gradients = torch.autograd.grad(
            total, list(at.values()), create_graph=differentiable, materialize_grads=True
        )
        return list(gradients)

    def _looped(
        self, inputs: Tensor, targets: Tensor, weights: Params | None, *, differentiable: bool
    ) -> list[Tensor]:
        gradients = []
        for row, (batch, truth) in enumerate(zip(inputs, targets, strict=True)):
            row_weights = (
                self.weights if weights is None else {n: w[row] for n, w in weights.items()}
            )
            at = {
                n: w if w.requires_grad else w.detach().requires_grad_()
                for n, w in row_weights.items()
            }
            loss = cross_entropy(functional_call(self.model, at, (batch,)), truth)
            gradients.append(
                torch.autograd.grad(
                    loss, list(at.values()), create_graph=differentiable, materialize_grads=True
                )
            )
        return [torch.stack(parts) for parts in zip(*gradients, strict=True)]


def forward_rows(
    model: nn.Module, weights: Params, inputs: Float[Tensor, "rows batch *shape"]
) -> Float[Tensor, "rows batch *out"]:
    """Run a model of linear layers and convolutions, each row with weights of its own.

    Args:
        model: The architecture.
        weights: All of its parameters, (rows, *parameter shape).
        inputs: A batch per row.
    """
    with OwnLayers(weights, len(inputs)), plain_attention():
        out = functional_call(model, dict(weights), (inputs.flatten(0, 1),))
    return out.unflatten(0, inputs.shape[:2])
