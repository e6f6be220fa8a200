"""Variational information bottleneck: what the features say of an input has a price."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from jaxtyping import Float, Int, Num
from torch import Generator, Tensor, nn
from torch.nn import functional

from defenses.defense import Defense
from defenses.promise import Promise
from fedsim.core.catalog import Entry
from fedsim.core.sgd import gradients
from fedsim.core.types import LocalTraining, Params
from fedsim.models import Bottleneck


def vib(*, beta: float = 1e-3) -> Defense:
    """Add β times the bottleneck's information to the loss, of a model that has one.

    The model is built with it (`--set model.bottleneck=32`), and its draws come from the client's
    own stream while it trains. Source: Alemi, Fischer, Dillon, Murphy, "Deep Variational
    Information Bottleneck", ICLR 2017, eq. 17; Scheliga, Mäder, Seeland, "PRECODE", WACV 2022.
    Promises no privacy: layers before the bottleneck see the draw, not the noise-free code, but
    an attacker that optimises over the draw too gets past it (Balunović et al., ICLR 2022).

    Args:
        beta: Price of a nat; ≥ 0.

    Raises:
        ValueError: `beta` is negative or not finite.
    """
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta: must be finite and ≥ 0, got {beta}")

    return Defense(
        name="vib",
        gradient=partial(priced_gradient, beta=beta),
        check=_check,
        promise=Promise(
            statement="random features hide inputs from attacks that do not search over the draw"
        ),
    )


def priced_gradient(
    model: nn.Module,
    parameters: Params,
    inputs: Num[Tensor, "batch *shape"],
    labels: Int[Tensor, "batch *target"],
    local: LocalTraining,
    generator: Generator,  # noqa: ARG001
    *,
    beta: float,
) -> Sequence[Tensor]:
    """Return the batch gradient of the loss and β times the bottleneck's information."""
    with _codes(model) as codes:
        logits = model(inputs)
    loss = functional.cross_entropy(logits, labels, label_smoothing=local.label_smoothing)
    for mean, log_variance in codes:
        loss = loss + beta * information(mean, log_variance)
    return gradients(loss, parameters)


def _check(model: nn.Module, local: LocalTraining, sizes: Sequence[int]) -> None:  # noqa: ARG001
    if not any(isinstance(module, Bottleneck) for module in model.modules()):
        raise ValueError("vib: must have a model with a bottleneck, got none; set model.bottleneck")


def information(mean: Float[Tensor, "n k"], log_variance: Float[Tensor, "n k"]) -> Tensor:
    """Return KL(N(mean, variance) ‖ N(0, 1)) in nats, summed over the code, mean over examples."""
    each = (mean.square() + log_variance.exp() - log_variance - 1) / 2
    return each.sum(dim=1).mean()


@contextmanager
def _codes(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect mean and log-variance of every bottleneck that the model runs inside the block."""
    codes: list[tuple[Tensor, Tensor]] = []

    def note(bottleneck: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
        assert isinstance(bottleneck, Bottleneck)
        codes.append((bottleneck.mean(*inputs), bottleneck.log_variance(*inputs)))

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, Bottleneck)]
    try:
        yield codes
    finally:
        for hook in hooks:
            hook.remove()


DEFENSE = Entry("vib", vib, paper="Alemi et al., ICLR 2017; Scheliga, Mäder, Seeland, WACV 2022")
