"""Attacks of breaching on a recording: its gradient inversions, and its ways to read labels.

J. Geiping and others, "Breaching: a framework for attacks against privacy in federated learning",
github.com/JonasGeiping/breaching; each attack is its configuration of that name.

Idea: the server's payload and the client's shared gradient are handed over as breaching's own cases
do it, and the candidate that its loss prefers is taken. No ground truth is at hand.

*Server must know*: the weights sent, the gradient of one batch, the number of examples.
*Exact when*: never; see the papers of each configuration.
*Differs from breaching*:
- The box is the range [0, 1] without standardisation. Images without three channels have no total
  variation, because breaching's is for three.
- Random numbers come from the attack's generator.
- Several local steps are refused.
- Models are in training mode, as the clients' are.

Left out, because breaching 0.1.2 itself fails on them with torch 2.15: the configurations `rgap`
and `multiscale_ghiasi`, and the strategies `wainakh-whitebox` and `exhaustive`.
"""

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from adversary.adapters.package import check_installed
from adversary.attack import Attack
from adversary.attacks.batch_labels import batch_labels
from adversary.inversion.reading import batch_gradient, batch_size
from adversary.labels.head import input_shape
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import global_stream
from fedsim.core.types import Auxiliary, View

PACKAGE, INSTALL = "breaching", "pip install breaching"
INVERSIONS = (
    "invertinggradients", "deepleakage", "beyondinfering", "modern", "legacy", "wei",
    "seethroughgradients", "analytic",
)  # fmt: skip
RGB_ONLY = ("modern", "wei")  # begin with patterns of three channels
STRATEGIES = ("iDLG", "analytic", "yin", "wainakh-simple", "bias-corrected")


def invert(
    config: str,
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    iterations: int | None = None,
    restarts: int | None = None,
    labels: Literal["breaching", "fedsim"] = "breaching",
) -> Float[Tensor, "n *shape"]:
    """Return what one of breaching's attacks reconstructs.

    Args:
        config: Name of breaching's configuration.
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture; labelled examples where fedsim reads the labels.
        generator: Seeds all random numbers.
        iterations: Of its optimiser; those of its configuration if None.
        restarts: Trials; those of its configuration if None.
        labels: Whose label attack is used.

    Raises:
        NotApplicable: breaching is not installed, or the client took several steps.
        ValueError: The update is not finite.
    """
    attacker, payload, shared = _case(view, auxiliary, generator, config, iterations, restarts)
    if labels == "fedsim":
        shared[0]["metadata"]["labels"] = batch_labels(view, auxiliary, generator)
    with _quiet(generator):
        answer, _ = attacker.reconstruct(payload, shared, server_secrets={})
    return answer["data"].detach().float()


def read_labels(
    strategy: str, view: View, auxiliary: Auxiliary, generator: Generator
) -> Int[Tensor, " classes"]:
    """Return label counts by one of breaching's strategies.

    Args:
        strategy: As breaching calls it.
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Seeds all random numbers.

    Raises:
        NotApplicable: breaching is not installed, or the client took several steps.
        ValueError: The update is not finite, or the strategy names another number of labels.
    """
    case = _case(view, auxiliary, generator, "invertinggradients", 1, 1)
    attacker, payload, shared = case
    attacker.cfg.label_strategy = strategy
    with _quiet(generator):
        _, labels, _ = attacker.prepare_attack(payload, shared)
    counts = torch.bincount(labels.flatten().long(), minlength=auxiliary.num_classes)
    size = batch_size(view.latest)
    if int(counts.sum()) != size or len(counts) != auxiliary.num_classes:
        raise ValueError(f"labels: must be {size}, got {int(counts.sum())} from breaching")
    return counts


def _case(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    config: str,
    iterations: int | None,
    restarts: int | None,
) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    """Return breaching's attacker, the server's payload, and what the client shared."""
    check_installed(PACKAGE, INSTALL)
    gradient = batch_gradient(view.latest, auxiliary)
    names = [name for name, _ in auxiliary.model.named_parameters()]
    if list(gradient) != names:
        raise NotApplicable(f"update: must hold every parameter in order, got {len(gradient)}")
    shape = input_shape(auxiliary)
    if config in RGB_ONLY and shape[:-2] != (3,):
        raise NotApplicable(f"inputs: must be images of three channels, got shape {shape}")
    about = {
        "num_data_points": batch_size(view.latest),
        "labels": None,
        "local_hyperparams": None,
        "num_users": 1,
    }
    shared = {
        "gradients": [gradient[name].float() for name in names],
        "buffers": None,
        "metadata": about,
    }
    with _quiet(generator):
        cfg = _settings(config, shape, iterations, restarts)
        attacker = import_module(f"{PACKAGE}.attacks").prepare_attack(
            auxiliary.model,
            nn.CrossEntropyLoss(),
            cfg,
            {"device": torch.device("cpu"), "dtype": torch.float},
        )
        metadata = import_module("omegaconf").OmegaConf.create(
            {
                "shape": list(shape),
                "modality": "vision",
                "task": "classification",
                "classes": auxiliary.num_classes,
            }
        )
    sent = [view.latest.sent[name] for name in names]
    payload = {"parameters": sent, "buffers": None, "metadata": metadata}
    return attacker, [payload], [shared]


def _settings(
    config: str, shape: tuple[int, ...], iterations: int | None, restarts: int | None
) -> Any:
    """Return breaching's configuration for examples of a shape, with other numbers of steps."""
    cfg = copy.deepcopy(_config(config))
    if len(shape) == 3 and shape[0] != 3 and "regularization" in cfg:
        cfg.regularization = {}  # its total variation is for three channels alone
    if iterations is not None and "optim" in cfg:
        cfg.optim.max_iterations = iterations
    if restarts is not None and "restarts" in cfg:
        cfg.restarts.num_trials = restarts
    return cfg


@lru_cache
def _config(name: str) -> Any:
    """Return breaching's configuration; to read one takes a second."""
    return import_module(PACKAGE).get_attack_config(name)


@contextlib.contextmanager
def _quiet(generator: Generator) -> Iterator[None]:
    """Seed the global generator inside the block, and keep what breaching prints to itself."""
    seed = int(torch.randint(2**31, (), generator=generator))
    with (
        global_stream(seed, PACKAGE),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


ATTACKS = (
    *(
        Attack(
            name=f"{PACKAGE}:{config}",
            family="reconstruction",
            infer=partial(invert, config),
            summary=f"breaching's {config}; needs the package breaching",
            has_twin=False,
        )
        for config in INVERSIONS
    ),
    *(
        Attack(
            name=f"{PACKAGE}:labels-{strategy.lower()}",
            family="label",
            infer=partial(read_labels, strategy),
            summary=f"breaching's label strategy {strategy}; needs the package breaching",
            has_twin=False,
        )
        for strategy in STRATEGIES
    ),
)
