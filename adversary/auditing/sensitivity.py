"""How far a record moves an update: the distance between the gradients of two neighbours."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.nn import functional

from fedsim.core.attention import plain_attention
from fedsim.core.secrets import Encoding
from fedsim.core.types import Params

CELLS = 2**22  # entries of gradients held at the same time


@dataclass(frozen=True, eq=False)
class Question:
    """What two neighbouring data sets differ in: one record's attribute, or the record itself.

    Attributes:
        model: The architecture; must not mix examples.
        state: Its weights.
        clip: Norm that a record's gradient is clipped to; infinite where none is.
        encoding: How the attribute stands in the inputs; None where it is asked whether the record
            is there at all.
        label_smoothing: Of the loss.
    """

    model: nn.Module
    state: Params
    clip: float
    encoding: Encoding | None = None
    label_smoothing: float = 0.0

    def apart(
        self, inputs: Shaped[Tensor, "n *shape"], labels: Int[Tensor, "n *targets"]
    ) -> Float[Tensor, " n"]:
        """Return how far each record's two gradients are apart, at most 2·clip.

        ‖clip(∇ℓ(z, a = 1)) − clip(∇ℓ(z, a = 0))‖, or ‖clip(∇ℓ(z))‖ where z is there or not.
        """
        trained, others = self._split()
        size = sum(value.numel() for value in trained.values())
        chunk = max(1, CELLS // (2 * size))
        distances = vmap(lambda x, y: self._distance(trained, others, x, y))
        parts = zip(inputs.split(chunk), labels.split(chunk), strict=True)
        return torch.cat([distances(x, y).detach() for x, y in parts])

    def climb(
        self, inputs: Float[Tensor, "n *shape"], labels: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n *shape"]]:
        """Return `apart` and its gradient in the inputs."""
        trained, others = self._split()

        def distance(x: Tensor, y: Tensor) -> Tensor:
            return self._distance(trained, others, x, y)

        slopes, values = vmap(grad_and_value(distance))(inputs, labels)
        return values.detach(), slopes.detach()

    def gradients(
        self, inputs: Float[Tensor, "n *shape"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, "n size"]:
        """Return each record's gradient as it is, flat; it can be differentiated in the inputs."""
        trained, others = self._split()
        return vmap(lambda x, y: self._gradient(trained, others, x, y))(inputs, labels)

    def _split(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        names = {name for name, value in self.model.named_parameters() if value.requires_grad}
        trained = {n: v.detach() for n, v in self.state.items() if n in names}
        return trained, {n: v.detach() for n, v in self.state.items() if n not in names}

    def _gradient(self, trained: Params, others: Params, x: Tensor, y: Tensor) -> Tensor:
        def loss(weights: dict[str, Tensor]) -> Tensor:
            with plain_attention():
                logits = functional_call(self.model, (weights, dict(others)), (x.unsqueeze(0),))
            return functional.cross_entropy(
                logits, y.unsqueeze(0), label_smoothing=self.label_smoothing
            )

        gradients = grad(loss)(dict(trained))
        return torch.cat([value.flatten() for value in gradients.values()])

    def _clipped(self, trained: Params, others: Params, x: Tensor, y: Tensor) -> Tensor:
        gradient = self._gradient(trained, others, x, y)
        if self.clip == math.inf:
            return gradient
        length = gradient.square().sum().add(1e-24).sqrt()
        return gradient * (self.clip / length).clamp(max=1.0)

    def _distance(self, trained: Params, others: Params, x: Tensor, y: Tensor) -> Tensor:
        if self.encoding is None:
            return self._clipped(trained, others, x, y).square().sum().add(1e-24).sqrt()
        columns = self.encoding.columns
        present, absent = (
            x.index_put((columns,), code.to(x.dtype))
            for code in (self.encoding.present, self.encoding.absent)
        )
        apart = self._clipped(trained, others, present, y) - self._clipped(
            trained, others, absent, y
        )
        return apart.square().sum().add(1e-24).sqrt()
