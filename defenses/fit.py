"""Whether a defense can train a model and keep its promise there: found before round 1."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from defenses.defense import Defense
from fedsim import models
from fedsim.core.accepts import Rule
from fedsim.core.boundary import raised
from fedsim.core.form import KINDS, Form
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import LocalTraining
from fedsim.models.trial import batch, parameters_of

APART = Rule(
    "model", "model", "must not mix examples under a defense that takes each one's gradient"
)
STILL = Rule("model", "model", "must have no state that training moves by itself under dp-sgd")
FORGETS = Rule("model", "model", "must not remember earlier batches under dp-sgd")
PRECISE = Rule("model", "model", "must have parameters of float32 or finer where an ε is claimed")
KIND = Rule("model", "model", "must be of a kind that the defense works on")
TRAINS = Rule("model", "model", "must train under the defense")

FINE = 1e-6  # relative rounding error
CHECKS = (KIND, APART, STILL, FORGETS, PRECISE, TRAINS)


def check_fit(
    defense: Defense,
    model: nn.Module,
    local: LocalTraining,
    sizes: Sequence[int],
    form: Form,
) -> tuple[str, ...]:
    """Refuse a defense that does not do what it says with this model or these clients.

    Args:
        defense: Of the clients.
        model: Left as it is.
        local: The protocol.
        sizes: Every client's number of examples.
        form: Of the data.

    Returns:
        Names in the model's state that training moves by itself: an ε does not cover them. None
        are looked for where no ε is claimed.

    Raises:
        ValueError: In one sentence.
    """
    if form.kind not in defense.kinds:
        able = " or ".join(KINDS[kind] for kind in defense.kinds)
        raise ValueError(f"{defense.name}: {KIND.message(f'{KINDS[form.kind]}, not {able}')}")
    defense.check(model, local, sizes)
    if defense.apart and (layer := models.mixing_layer(model, form)):
        raise ValueError(f"{defense.name}: {APART.message(layer)}; use GroupNorm")
    moved = ()
    if defense.promise.formal:
        _check_precision(defense, model)
        moved = models.moved_state(model, form)
    if defense.apart and defense.promise.formal:
        if moved:
            raise ValueError(f"{defense.name}: {STILL.message(moved[0])}")
        if models.remembers(model, form):
            raise ValueError(f"{defense.name}: {FORGETS.message('another gradient after them')}")
    if defense.gradient is not None:
        _try_gradient(defense, model, local, form)
    return moved


def _check_precision(defense: Defense, model: nn.Module) -> None:
    """Refuse numbers so coarse that rounding carries an update beyond its bound.

    Raises:
        ValueError: There is one.
    """
    for name, value in parameters_of(model).items():
        if torch.finfo(value.dtype).eps > FINE:
            raise ValueError(f"{defense.name}: {PRECISE.message(f'{name} of {value.dtype}')}")


def _try_gradient(
    defense: Defense,
    model: nn.Module,
    local: LocalTraining,
    form: Form,
) -> None:
    """Let the defense take the gradient of a random batch.

    Raises:
        ValueError: It cannot, or its gradient does not fit the parameters.
    """
    assert defense.gradient is not None
    working = copy.deepcopy(model).train()
    trained = parameters_of(working)
    inputs, labels = batch(form)
    coins = generator(0, "trial")
    try:
        with global_stream(0, "trial"):
            slopes = defense.gradient(working, trained, inputs, labels, local, coins)
        for value, slope in zip(trained.values(), slopes, strict=True):
            torch.add(value.detach(), slope.reshape(value.shape))
    except Exception as error:
        raise ValueError(f"{defense.name}: {TRAINS.message(raised(error))}") from None
