"""A run's setting in words: the table at the top of its report."""

from fedsim.config import Config, Federation, Part
from fedsim.config.foreign import Foreign
from fedsim.core.local_training import TITLES


def facts_of(config: Config) -> dict[str, str]:
    """Return what was federated, how it was trained and what defended it, by what it is."""
    if config.foreign:
        return _facts_of_another_app(config, config.foreign)
    federation, data = config.federation, config.data
    spread = {"dirichlet": f"(α = {data.alpha:g})", "user": f"({data.users})"}
    return {
        "Data": f"{data.name}, {data.partition} {spread.get(data.partition, '')}",
        "Model": config.model.name,
        "Federation": f"{federation.strategy}, {federation.clients} clients, "
        f"{federation.sampled} per round, {federation.rounds} rounds{_sums(federation)}",
        "Local training": _local_text(config),
        "Defenses": " → ".join(part_text(part) for part in config.defense)
        or "none in the run's config",
        "Seed": str(config.seed),
    }


def part_text(part: Part) -> str:
    """Return a chosen part and its options in words."""
    options = ", ".join(f"{key} = {value}" for key, value in part.options.items())
    return f"{part.name} ({options})" if options else part.name


def _facts_of_another_app(config: Config, foreign: Foreign) -> dict[str, str]:
    """Return what was told of a recording that fedsim did not run, under a run's own keys."""
    held = foreign.auxiliary or "none"
    shape = "×".join(map(str, foreign.input_shape))
    data = f"{foreign.num_classes} classes"
    model = f"only the head, of {shape} features"
    if not foreign.head_only:
        data, model = f"{data}, inputs {shape}; the adversary's own: {held}", config.model.name
    optimizer = f", trained by {foreign.optimizer} and read as SGD" if foreign.optimizer else ""
    return {
        "Data": data,
        "Model": model,
        "Federation": "another Flower app's recording",
        "Local training": f"{_local_text(config)}, as told{optimizer}",
        "Defenses": "not told",
        "Seed": f"{config.seed} (of the attacks)",
    }


def _sums(federation: Federation) -> str:
    """Say where the server saw sums only."""
    sums = federation.secure_aggregation
    return f"; secure aggregation (at least {100 * sums.threshold:.0f} % remain)" if sums else ""


def _local_text(config: Config) -> str:
    local = config.local_training()
    momentum = f"momentum {local.momentum:g}, " if local.momentum else ""
    optimizer = "" if local.optimizer == "sgd" else f"{TITLES[local.optimizer]}, "
    return (
        f"{optimizer}lr {local.lr:g}, {momentum}batch {local.batch_size}, "
        f"{local.epochs} epoch{'s' * (local.epochs > 1)}, uploads {local.upload}"
    )
