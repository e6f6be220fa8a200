"""Server strategies by name, and the recorder around them."""

import inspect
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from fedsim.config import Federation
from fedsim.config.federation import Secure
from fedsim.core.boundary import boundary
from fedsim.core.catalog import find, with_extensions
from fedsim.core.errors import ConfigError, nearest
from fedsim.core.rng import derive
from strategies.around import check_strategy
from strategies.fedsgd import FedSGD
from strategies.fence import Fence
from strategies.ordered import OrderedGrid
from strategies.recording import Recording
from strategies.secure import SecureAggregation, needs_single
from strategies.tape import Tape

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "fedavg": flower.FedAvg,
    "fedprox": flower.FedProx,
    "fedadam": flower.FedAdam,
    "fedyogi": flower.FedYogi,
    "fedadagrad": flower.FedAdagrad,
    "fedavgm": flower.FedAvgM,
    "fedmedian": flower.FedMedian,
    "fedtrimmedavg": flower.FedTrimmedAvg,
    "krum": flower.Krum,
    "multikrum": flower.MultiKrum,
    "bulyan": flower.Bulyan,
    "fedsgd": FedSGD,
}

ATTACKERS = "num_malicious_nodes"

__all__ = [
    "STRATEGIES",
    "FedSGD",
    "Fence",
    "OrderedGrid",
    "Recording",
    "SecureAggregation",
    "Tape",
    "build",
    "sampling",
    "secured",
]


def build(federation: Federation, *, lr: float, buffers: Iterable[str]) -> Strategy:
    """Return the strategy that a config names, sampling exactly `per_round` clients.

    Args:
        federation: The section of the config; its `options` go to the strategy.
        lr: Of FedSGD's step.
        buffers: Names in the model's state that are no parameters.

    Raises:
        ConfigError: The name or an option is unknown, or an option is out of range.
    """
    make = find(
        "federation.strategy", federation.strategy, with_extensions(STRATEGIES, "strategies")
    )
    fixed: dict[str, Any] = {
        "fraction_train": federation.sampled / federation.clients,
        "min_train_nodes": federation.sampled,
        "min_available_nodes": federation.clients,
    }
    if make is FedSGD:
        fixed |= {"lr": lr, "buffers": tuple(buffers)}
    names = option_names(make)
    for name, value in federation.options.items():
        if name not in names:
            hint = nearest(name, names) if names else "there are no options"
            raise ConfigError(f"federation.options.{name}: must be a known key; {hint}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"federation.options.{name}: must be a number, got {value!r}")
    _check_attackers(federation)
    with boundary("federation.strategy", f"'{federation.strategy}' must build a strategy"):
        try:
            strategy = make(**fixed, **federation.options)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"federation.options: {error}") from error
    check_strategy(strategy)
    if federation.secure_aggregation and (reason := needs_single(strategy)):
        raise ConfigError(
            "federation.secure_aggregation: must go with a strategy of the mean alone, "
            f"got {reason}, which needs single uploads"
        )
    return strategy


def _check_attackers(federation: Federation) -> None:
    """Refuse more attackers than Krum and its kin can outvote: 2f + 3 clients for f of them.

    Source: Blanchard et al., "Machine Learning with Adversaries", NeurIPS 2017.

    Raises:
        ConfigError: There are more, or their number is none.
    """
    count, most = federation.options.get(ATTACKERS, 0), max(0, (federation.sampled - 3) // 2)
    if not isinstance(count, int) or not 0 <= count <= most:
        raise ConfigError(
            f"federation.options.{ATTACKERS}: must be a whole number from 0 to {most} with "
            f"{federation.sampled} clients per round, got {count}"
        )


def secured(strategy: Strategy, protocol: Secure | None, seed: int) -> Strategy:
    """Return the strategy as the server runs it: behind secure aggregation, or as it is with None.

    All masks come from the run's seed, which every party of a simulation knows.
    """
    if protocol is None:
        return strategy
    return SecureAggregation(strategy, secret=seed, **protocol.model_dump())


def option_names(make: Callable[..., Strategy]) -> list[str]:
    """Return the numbers that a strategy can be given by `federation.options`."""
    parameters = inspect.signature(make).parameters.values()
    return [
        p.name for p in parameters if isinstance(p.default, int | float) and not _reserved(p.name)
    ]


def _reserved(name: str) -> bool:
    return name.startswith(("fraction_", "min_"))


@contextmanager
def sampling(seed: int, round_: int) -> Iterator[None]:
    """Seed the global stream that Flower's strategies sample clients from, and put it back."""
    before = random.getstate()
    random.seed(derive(seed, "sample", round_))
    try:
        yield
    finally:
        random.setstate(before)
