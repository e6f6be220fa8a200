"""The optimizers that an app's clients run, read from its source."""

import re
from dataclasses import dataclass

from fedsim.federation.foreign.code import Call, Code

OPTIMIZERS = (
    "torch.optim.", "optax.", "keras.optimizers.", "tensorflow.keras.optimizers.",
    "sklearn.linear_model.", "transformers.AdamW", "mlx.optimizers.",
)  # fmt: skip
TRAINERS = ("transformers.TrainingArguments", "transformers.Seq2SeqTrainingArguments", "trl.SFT")
RATE = re.compile(r"lr|rate|^[0-9.e-]+$")  # in an argument of optax's optimizers


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """A call that makes or names an optimizer.

    Attributes:
        name: In small letters: "sgd", "adamw"; of scikit-learn the solver.
        lr: Its learning rate; None where the source has no constant.
        momentum: The same.
        place: File and line.
    """

    name: str
    lr: float | None
    momentum: float | None
    place: str


def optimizers_of(code: Code, server: str) -> tuple[Optimizer, ...]:
    """Return the clients' optimizers; those in the server's file only where there are no others.

    Args:
        code: The app's.
        server: The module of the ServerApp.
    """
    path = f"{server.replace('.', '/')}.py"
    made = tuple(filter(None, map(_optimizer, code.calls))) or _compiled(code)
    return tuple(it for it in made if not it.place.startswith(f"{path}:")) or made


def _optimizer(call: Call) -> Optimizer | None:
    """Return the optimizer that a call makes; None for another call."""
    if call.name.startswith(TRAINERS):  # their default
        return _named(call, str(call.values.get("optim", "adamw")))
    if not call.name.startswith(OPTIMIZERS) or "lr_scheduler" in call.name:
        return None
    rates = [call.values.get(key) for key in ("lr", "learning_rate")]
    given = " ".join([*call.arguments[:1], *(str(rate) for rate in rates if rate is not None)])
    if call.name.startswith("optax.") and not RATE.search(given):
        return None  # a loss, a schedule
    return _named(call, str(call.values.get("solver", call.last)))


def _named(call: Call, name: str) -> Optimizer:
    rates = (call.values.get(key) for key in ("lr", "learning_rate"))
    lr, momentum = next((it for it in rates if it is not None), None), call.values.get("momentum")
    return Optimizer(
        name=name.lower(),
        lr=lr if isinstance(lr, float) else None,
        momentum=momentum if isinstance(momentum, float) else None,
        place=f"{call.path}:{call.line}",
    )


def _compiled(code: Code) -> tuple[Optimizer, ...]:
    """Return the optimizers that calls of Keras's `compile` name."""
    return tuple(
        _named(call, str(call.values["optimizer"]))
        for call in code.calls
        if call.last == "compile" and "optimizer" in call.values
    )
