"""The gradient of every example of a batch by itself."""

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedsim.core.types import Params


def flat_rows(gradients: Tensor) -> Float[Tensor, "batch n"]:
    """Return each example's gradient of one parameter as a row; the parameter may be one number."""
    return gradients.flatten(1) if gradients.dim() > 1 else gradients.unsqueeze(1)


def example_gradients(
    model: nn.Module,
    parameters: Params,
    inputs: Float[Tensor, "batch *shape"],
    labels: Int[Tensor, " batch"],
    *,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Return each example's gradient of its cross-entropy, per parameter, shape (batch, *shape).

    Args:
        model: Runs on one example at a time; must not mix examples. Dropout draws for each.
        parameters: Those to take gradients of.
        inputs: At least one example.
        labels: Theirs.
        label_smoothing: Of the loss.
    """
    values = {name: value.detach() for name, value in parameters.items()}
    others = {n: v.detach() for n, v in model.state_dict().items() if n not in values}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(model, (weights, others), (x.unsqueeze(0),))
        return functional.cross_entropy(logits, y.unsqueeze(0), label_smoothing=label_smoothing)

    return vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")(values, inputs, labels)
