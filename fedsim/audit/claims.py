"""What a mechanism claims, and of which neighbours."""

import math
from collections.abc import Sequence
from dataclasses import replace

from adversary.auditing import claim as claims
from adversary.auditing.claim import Claim
from defenses import links
from defenses.promise import Promise, Relation, mu_of_epsilon
from defenses.registry import all_options
from fedsim.audit.mechanism import Mechanism
from fedsim.config import Part
from fedsim.config.audit import Audit
from fedsim.core.errors import ConfigError
from fedsim.core.secrets import Encoding
from fedsim.core.types import LocalTraining

DELTA = 1e-5  # if neither the config nor a defense states one


DECLARED = {
    "add-remove": Relation.ADD_OR_REMOVE_EXAMPLE,
    "zero": Relation.ZERO_EXAMPLE,
    "replace": Relation.REPLACE_EXAMPLE,
    "attribute": Relation.REPLACE_ATTRIBUTE,
    "client": Relation.REPLACE_CLIENT,
}
"""`audit.relation` → the neighbours that a user's mechanism claims something of."""


def relation_of(audit: Audit, promise: Promise, encoding: Encoding | None) -> Relation:
    """Return which neighbours are audited: of an attribute, a client, or a record."""
    if encoding is not None:
        return Relation.REPLACE_ATTRIBUTE
    if audit.relation is not None:
        return DECLARED[audit.relation]
    # A record that is absent keeps its place in the sampling: it is zeroed as well as removed.
    for relation in (Relation.ZERO_EXAMPLE, Relation.REPLACE_CLIENT):
        if promise.relation is relation:
            return relation
    return Relation.ADD_OR_REMOVE_EXAMPLE


def claim_of(audit: Audit, made: Mechanism, relation: Relation) -> Claim:
    """Return what the mechanism claims of the audited neighbours, over all rounds.

    Raises:
        ConfigError: ε is not known at the δ that the config names.
    """
    if made.user is not None:
        return _declared(audit)
    promise, size, rounds = made.defense.promise, audit.batch_size, audit.rounds
    about, beside = promise.about(relation), ""
    if promise.epsilon is not None and promise is not about:
        beside = f"{promise.relation}: ε = {promise.epsilon(made.local, size, rounds):.3g}"
    if about is None:
        return Claim(relation=relation, delta=audit.delta or DELTA, beside=beside)
    try:
        claim = claims.claim_of(about, made.local, size, rounds, delta=audit.delta)
    except ValueError as error:
        raise ConfigError(f"audit.{error}") from None
    return replace(claim, beside=beside, density=made.density)


def _declared(audit: Audit) -> Claim:
    """Return what a user's mechanism claims, in the user's words: of no other neighbours."""
    assert audit.relation is not None
    assert audit.claim is not None
    delta, rounds = audit.delta or DELTA, audit.rounds
    gaussian = audit.mechanism_type == "gaussian"
    mu = mu_of_epsilon(audit.claim, delta) if gaussian else None
    return Claim(
        relation=DECLARED[audit.relation],
        delta=delta,
        epsilon=audit.claim,
        mu=mu,
        round_mu=None if mu is None else mu / rounds**0.5,
        rounds=rounds,
        density=gaussian,
        mechanism="Gaussian mechanism, as declared" if gaussian else "",
    )


def clip_of(parts: Sequence[Part], local: LocalTraining, batch: int) -> float:
    """Return what one record's gradient is clipped to by the config; infinite without a clip."""
    alone = local.upload == "gradient" and batch == 1
    for part, link in zip(parts, links(parts), strict=True):
        options = all_options(part)
        if "clip" in options:
            return float(options["clip"])
        bound = link.bound(math.inf)
        if alone and math.isfinite(bound):
            return bound
    return math.inf
