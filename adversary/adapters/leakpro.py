"""LeakPro's inverting gradients on a recording.

LeakPro, github.com/aidotse/LeakPro, `leakpro.attacks.gia_attacks.invertinggradients`, after
J. Geiping and others, "Inverting Gradients", NeurIPS 2020.

Idea: its loss and its optimiser's settings, on the gradient that the tape holds.

*Server must know*: the weights sent, the gradient of one batch, the number of examples.
*Exact when*: never.
*Differs from LeakPro*:
- LeakPro is handed the client's data, computes the gradient itself, and chooses among its answers
  by their similarity to the truth. Here the gradient is the recorded one, and the answer is the one
  of the lowest loss.
- Labels come from a label attack; LeakPro takes the true ones.
- Several local steps are refused.
"""

import contextlib
import copy
import io
import warnings
from importlib import import_module
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from adversary.adapters.package import check_installed
from adversary.attack import Attack
from adversary.attacks.batch_labels import batch_labels
from adversary.inversion.reading import batch_gradient, batch_size
from adversary.labels.head import input_shape
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import global_stream
from fedsim.core.types import Auxiliary, View

PACKAGE, INSTALL = (
    "leakpro",
    "from its source, github.com/aidotse/LeakPro, with [federated], and transformers",
)
FALLS = (2.667, 1.6, 1.142)  # the rate falls to a tenth at 1/2.667 of the way, and so on


def inverting_gradients(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    iterations: int = 8000,
    lr: float = 0.1,
    tv: float = 1e-6,
) -> Float[Tensor, "n *shape"]:
    """Return the images of the lowest loss.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture; labelled examples for the label attack.
        generator: Seeds all random numbers.
        iterations: Steps of Adam; ≥ 1.
        lr: Its rate, > 0.
        tv: Weight of the total variation, ≥ 0.

    Raises:
        NotApplicable: LeakPro is not installed, inputs are no images, the client took several
            steps, or an option is out of range.
        ValueError: The update is not finite.
    """
    check_installed(PACKAGE, INSTALL)
    shape = input_shape(auxiliary)
    if len(shape) != 3:
        raise NotApplicable(f"inputs: must be images, got shape {shape}")
    if iterations < 1 or not lr > 0 or not tv >= 0:
        got = f"{iterations}, {lr:g} and {tv:g}"
        raise NotApplicable(f"iterations, lr, tv: must be ≥ 1, > 0 and ≥ 0, got {got}")
    gradient = batch_gradient(view.latest, auxiliary)
    labels = batch_labels(view, auxiliary, generator)
    seed = int(torch.randint(2**31, (), generator=generator))
    with (
        global_stream(seed, PACKAGE),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
    ):
        guess = torch.randn((batch_size(view.latest), *shape)).requires_grad_()
        attack = _attack(view, auxiliary, gradient, guess, labels, tv)
        return _descended(attack, guess, iterations, lr)


def _attack(
    view: View,
    auxiliary: Auxiliary,
    gradient: dict[str, Tensor],
    guess: Tensor,
    labels: Tensor,
    tv: float,
) -> Any:
    """Return LeakPro's attack, without what its constructor wants of the client and the disk."""
    module = import_module("leakpro.attacks.gia_attacks.invertinggradients")
    model = copy.deepcopy(auxiliary.model).eval()
    model.load_state_dict({name: view.latest.sent[name] for name in model.state_dict()})
    names = [name for name, _ in model.named_parameters()]

    def simulated(*_: object) -> list[Tensor]:
        loss = functional.cross_entropy(model(guess), labels)
        return list(torch.autograd.grad(loss, list(model.parameters()), create_graph=True))

    attack = object.__new__(module.InvertingGradients)
    attack.model, attack.train_fn = model, simulated
    attack.configs = module.InvertingConfig(tv_reg=tv)
    attack.client_gradient = [gradient[name].float() for name in names]
    attack.reconstruction, attack.reconstruction_loader = guess, None
    return attack


def _descended(attack: Any, guess: Tensor, iterations: int, lr: float) -> Tensor:
    """Return the guess of the lowest loss on the way, by LeakPro's schedule."""
    optimizer = torch.optim.Adam([guess], lr=lr)
    falls = [int(iterations // part) for part in FALLS]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=falls, gamma=0.1)
    lowest, best = float("inf"), guess.detach().clone()
    for _ in range(iterations):
        before = guess.detach().clone()
        loss = cast("Tensor", optimizer.step(attack.gradient_closure(optimizer))).item()
        scheduler.step()
        with torch.no_grad():
            guess.clamp_(0, 1)
        if loss < lowest:
            lowest, best = loss, before
    return best.clamp(0, 1)


ATTACKS = (
    Attack(
        name=f"{PACKAGE}:invertinggradients",
        family="reconstruction",
        infer=inverting_gradients,
        summary="LeakPro's inverting gradients; the answer of the lowest loss; needs LeakPro",
        has_twin=False,
    ),
)
