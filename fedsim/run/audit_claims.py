"""What an audit of rounds is held against: which ε is claimed, and whether it can be tried."""

from collections.abc import Mapping, Sequence

from torch import nn

import defenses
from adversary.auditing.in_rounds import Claim, check_enough
from clients import carried
from defenses import Defense
from defenses.promise import Promise, gaussian_epsilon
from fedsim import models
from fedsim.config import Config
from fedsim.core.errors import ConfigError
from fedsim.core.types import LocalTraining


def check_audit(config: Config, defense: Defense, model: nn.Module, sizes: Sequence[int]) -> None:
    """Refuse an audit of rounds that could show nothing, or of which nothing is claimed.

    Args:
        config: Of the run.
        defense: Its clients'.
        model: Its architecture.
        sizes: Every client's number of examples.

    Raises:
        ConfigError: In one sentence.
    """
    asked, federation, record = config.audit, config.federation, config.record
    if not asked.clients:
        return
    if asked.clients > federation.clients:
        raise ConfigError(
            f"audit.clients: must be at most federation.clients = {federation.clients}, "
            f"got {asked.clients}"
        )
    if federation.secure_aggregation:
        raise ConfigError(
            "audit.clients: must be 0 with secure aggregation, which shows no client's upload, "
            f"got {asked.clients}"
        )
    theirs = {str(client) for client in range(asked.clients)}
    if record.every != 1 or (record.clients is not None and theirs - set(record.clients)):
        raise ConfigError(
            "record: must keep every round of the clients that are audited, got "
            f"every = {record.every}, clients = {list(record.clients or ()) or 'all'}"
        )
    promise = carried.promise_of(defense)
    if promise is None or models.remembering_layer(model) is not None:
        raise ConfigError(
            "audit.clients: must go with defenses that claim an ε of a client's data or of an "
            "example more (clip and then gaussian; dp-sgd with poisson) and a model without "
            f"running statistics, got {defense.name}, of which nothing is claimed"
        )
    links = defenses.links(config.defense)
    if promise.relation == carried.UPDATE and not carried.reach(links) < float("inf"):
        raise ConfigError(
            "audit.clients: must go with a defense that tells its bound, beyond which a canary "
            f"reaches, got {defense.name}"
        )
    local = config.local_training()
    claimed(config, promise, local, sizes, dict.fromkeys(theirs, 1))
    _check_enough(config, promise)


def claimed(
    config: Config,
    promise: Promise,
    local: LocalTraining,
    sizes: Sequence[int],
    rounds_of: Mapping[str, int],
) -> Claim:
    """Return what theory says of the most exposed of the clients that are audited.

    Args:
        config: Of the run.
        promise: Of the clients' defenses, about the audited neighbours.
        local: How clients train.
        sizes: Every client's number of examples, without canaries.
        rounds_of: Client → rounds it took part in; at least one client.

    Raises:
        ConfigError: ε is not known at the δ that is asked for.
    """
    epsilon_of, relation = promise.epsilon, promise.relation
    assert epsilon_of is not None
    assert relation is not None
    delta = config.audit.delta or promise.delta
    more = config.audit.records if relation == carried.RECORD else 0
    best: Claim | None = None
    for client, rounds in rounds_of.items():
        size = sizes[int(client)] + more
        mu = promise.mu(local, size, rounds) if promise.mu else None
        if delta == promise.delta:
            epsilon = epsilon_of(local, size, rounds)
        elif mu is not None:
            epsilon = gaussian_epsilon(mu, delta)
        else:
            raise ConfigError(
                f"audit.delta: must be the defense's own {promise.delta:g}, because its ε at "
                f"another is not known, got {delta:g}"
            )
        if best is None or epsilon > best.epsilon:
            best = Claim(
                relation, delta, config.audit.confidence, rounds, epsilon, mu, client,
                promise.mechanism or "",
            )  # fmt: skip
    assert best is not None
    return best


def _check_enough(config: Config, promise: Promise) -> None:
    if promise.relation != carried.RECORD:
        return
    asked, delta = config.audit, config.audit.delta or promise.delta
    try:
        check_enough(asked.clients * asked.records, delta=delta, confidence=asked.confidence)
    except ValueError as error:
        raise ConfigError(f"audit.clients: {error}") from None
