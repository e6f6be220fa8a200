"""Products with J = d(gradient)/d(input) for any parameters, whatever layers they are in.

Autograd differentiates the gradient g(x) of the loss of one example, or of a batch. Jᵀu is the
gradient of ⟨g, u⟩ in x; Jv is the derivative of Jᵀu in u along v. J itself is never formed. A
product of either kind takes the time of a few gradients, and the memory of one gradient.
"""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fedsim.core.attention import plain_attention

EDGE = 1e-5  # of the largest product: below that share of it, rounding hides what is smaller
AGREE = {torch.float64: 1e-8, torch.float32: 1e-3}  # relative difference that is rounding


class Products:
    """Products with the Jacobian of the gradient of some parameters at a batch of inputs.

    Args:
        model: In the mode in which it is looked at; left as it is.
        names: Of the parameters.
        inputs: Shape (n, *input_shape).
        labels: Their classes.

    Raises:
        RuntimeError: A layer has no second derivative.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str], inputs: Tensor, labels: Tensor
    ) -> None:
        self.model, self.names, self.labels = model, list(names), labels
        self.together = True  # whether several products may be computed at once
        self.x = inputs.detach().clone().requires_grad_()
        self.gradient = self.gradient_at(self.x)
        self.duals = [torch.zeros_like(value, requires_grad=True) for value in self.gradient]
        self._moving = [i for i, value in enumerate(self.gradient) if value.requires_grad]
        self.pulled = torch.zeros_like(self.x)
        if self._moving:
            (self.pulled,) = torch.autograd.grad(
                [self.gradient[i] for i in self._moving],
                self.x,
                [self.duals[i] for i in self._moving],
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )

    def gradient_at(self, x: Float[Tensor, "n *shape"]) -> tuple[Tensor, ...]:
        """Return the gradient at other inputs, by parameter; it can be differentiated."""
        parameters = dict(self.model.named_parameters())
        with plain_attention(), torch.enable_grad():
            loss = functional.cross_entropy(self.model(x), self.labels)
            return torch.autograd.grad(
                loss,
                [parameters[name] for name in self.names],
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )

    def push(self, v: Float[Tensor, "k n *shape"]) -> list[Tensor]:
        """Return J·v for each v, (k, *parameter shape) per parameter."""
        if not self.pulled.requires_grad:
            return [dual.new_zeros(len(v), *dual.shape) for dual in self.duals]
        return self._products([self.pulled], self.duals, [v])

    def pull(self, u: Sequence[Tensor]) -> Float[Tensor, "k n *shape"]:
        """Return Jᵀ·u for each u, given as (k, *parameter shape) per parameter."""
        if not self._moving:
            return self.x.new_zeros(len(u[0]), *self.x.shape)
        outputs = [self.gradient[i] for i in self._moving]
        return self._products(outputs, [self.x], [u[i] for i in self._moving])[0]

    def _products(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the products at once where PyTorch computes them rightly, else one by one."""
        count = len(vectors[0])
        first = _product(outputs, inputs, [vector[0] for vector in vectors])
        if self.together and count > 1:
            batched = _batched(outputs, inputs, vectors)
            if batched is not None and agree([it[0] for it in batched], first):
                return batched
            self.together = False
        rows = [first]
        rows += [_product(outputs, inputs, [it[k] for it in vectors]) for k in range(1, count)]
        return [torch.stack(parts) for parts in zip(*rows, strict=True)]


def _product(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        outputs, inputs, vectors, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def _batched(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor] | None:
    """Return the products of all vectors; None if a layer's derivative cannot be batched."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's: a layer is looped over
            products = torch.autograd.grad(
                outputs,
                inputs,
                vectors,
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=True,
            )
    except RuntimeError:
        return None
    count = len(vectors[0])
    return [
        like.new_zeros(count, *like.shape) if value is None else value.detach()
        for value, like in zip(products, inputs, strict=True)
    ]


def agree(values: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Return whether tensors differ by rounding alone, each at its own size or that of all."""
    largest = max((float(it.abs().max()) for it in expected if it.numel()), default=0.0)
    for value, right in zip(values, expected, strict=True):
        share = AGREE[right.dtype]
        size = float(right.abs().max()) if right.numel() else 0.0
        if value.shape != right.shape:
            return False
        if not bool(((value - right).abs() <= share * (size + EDGE * largest)).all()):
            return False
    return True
