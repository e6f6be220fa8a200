"""The claim that an audit of rounds may refute, and whether these canaries can refute it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import defenses
from adversary.auditing.claim import Claim, claim_of
from adversary.auditing.one_run import check_enough
from clients import carried
from defenses import Defense
from defenses.promise import Promise
from fedsim.config import Config
from fedsim.config.adversary import Record
from fedsim.config.audit import Audit
from fedsim.config.federation import Federation
from fedsim.core.errors import ConfigError
from fedsim.core.types import LocalTraining


def check_audit(
    config: Config, defense: Defense, moved: Sequence[str], sizes: Sequence[int]
) -> None:
    """Refuse an audit of rounds that could show nothing, or of which nothing is claimed.

    Args:
        config: Of the run.
        defense: Its clients'.
        moved: State that training moves by itself.
        sizes: Every client's number of examples.

    Raises:
        ConfigError: In one sentence.
    """
    audit = config.audit
    if not audit.clients:
        return
    _check_clients(audit, config.federation, config.record)
    promise = _promise(defense, moved)
    reach = carried.reach(defenses.links(config.defense))
    if promise.relation is carried.UPDATE and not math.isfinite(reach):
        raise ConfigError(
            "audit.clients: must go with a defense that states its bound, beyond which a canary "
            f"reaches, got {defense.name}"
        )
    once = dict.fromkeys(map(str, range(audit.clients)), 1)
    claimed(audit, promise, config.local_training(), sizes, once)
    _check_enough(audit, promise)


def _check_clients(audit: Audit, federation: Federation, record: Record) -> None:
    """Refuse audited clients that do not exist or whose uploads are not seen.

    Raises:
        ConfigError: In one sentence.
    """
    if audit.clients > federation.clients:
        raise ConfigError(
            f"audit.clients: must be at most federation.clients = {federation.clients}, "
            f"got {audit.clients}"
        )
    if federation.secure_aggregation:
        raise ConfigError(
            "audit.clients: must be 0 with secure aggregation, which shows no client's upload, "
            f"got {audit.clients}"
        )
    audited = {str(client) for client in range(audit.clients)}
    if record.every != 1 or (record.clients is not None and audited - set(record.clients)):
        raise ConfigError(
            "record: must keep every round of the clients that are audited, got "
            f"every = {record.every}, clients = {list(record.clients or ()) or 'all'}"
        )


def _promise(defense: Defense, moved: Sequence[str]) -> Promise:
    """Return the promise that canaries are compared with.

    Raises:
        ConfigError: There is none.
    """
    promise = carried.promise_of(defense)
    if promise is None or moved:
        raise ConfigError(
            "audit.clients: must go with defenses that claim an ε of a client's data or of an "
            "example more (clip and then gaussian; dp-sgd with poisson) and a model without state "
            f"that training moves by itself, got {' of '.join([*moved[:1], defense.name])}, of "
            "which nothing is claimed"
        )
    return promise


def claimed(
    audit: Audit,
    promise: Promise,
    local: LocalTraining,
    sizes: Sequence[int],
    rounds_of: Mapping[str, int],
) -> Claim:
    """Return what theory claims of the most exposed of the clients that are audited.

    Args:
        audit: That section of the run's config.
        promise: Of the clients' defenses, about the audited neighbours.
        local: How clients train.
        sizes: Every client's number of examples, without canaries.
        rounds_of: Client → rounds it took part in; at least one client.

    Raises:
        ConfigError: ε is not known at the δ that the config names.
    """
    canaries = audit.records if promise.relation is carried.RECORD else 0
    try:
        claims = [
            replace(
                claim_of(promise, local, sizes[int(client)] + canaries, rounds, delta=audit.delta),
                client=client,
            )
            for client, rounds in rounds_of.items()
        ]
    except ValueError as error:
        raise ConfigError(f"audit.{error}") from None
    return max(claims, key=lambda claim: claim.epsilon or 0.0)  # the first of equals


def _check_enough(audit: Audit, promise: Promise) -> None:
    if promise.relation is not carried.RECORD:
        return
    delta = audit.delta or promise.delta
    try:
        check_enough(audit.clients * audit.records, delta=delta, confidence=audit.confidence)
    except ValueError as error:
        raise ConfigError(f"audit.clients: {error}") from None
