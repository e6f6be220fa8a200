"""What no audit can be about: refused in one sentence before anything runs."""

import torch
from torch import nn

from adversary.auditing.rates import trials_for
from defenses import check_fit
from defenses.promise import Relation
from fedsim import data, models
from fedsim.audit.canary_names import CHOSEN, CRAFTED, RECORDS, canary_names
from fedsim.audit.mechanism import Mechanism
from fedsim.config.audit import Audit
from fedsim.core.errors import ConfigError, nearest
from fedsim.core.secrets import Encoding


def check_model(model: nn.Module, dataset: data.Dataset) -> None:
    """Refuse a model whose buffers follow the data.

    Raises:
        ConfigError: Training moves some by itself.
    """
    if moved := models.moved_state(model, dataset.form):
        raise ConfigError(
            "model: must have no state that training moves by itself, which is uploaded as it is, "
            f"got {moved[0]}"
        )


def check_sizes(audit: Audit, made: Mechanism, num_others: int) -> None:
    """Refuse a batch that is larger than all there is, or smaller than a local step.

    Raises:
        ConfigError: It is.
    """
    local = made.local
    if made.defense.batches is not None and local.batch_size > audit.batch_size:
        raise ConfigError(
            f"audit.batch_size: must be at least local.batch_size = {local.batch_size}: it is all "
            f"of the client's records, got {audit.batch_size}; --set audit.batch_size="
            f"{2 * local.batch_size} lets half of them be drawn"
        )
    if audit.batch_size > num_others:
        raise ConfigError(
            f"audit.batch_size: must be at most the {num_others} auxiliary records, got "
            f"{audit.batch_size}"
        )


def check_claim(audit: Audit) -> None:
    """Refuse a claim beside defenses, which state their own.

    Raises:
        ConfigError: There is one.
    """
    if audit.claim is not None and audit.mechanism is None:
        raise ConfigError(
            "audit.claim: must stand beside audit.mechanism; defenses state their own, "
            f"got {audit.claim:g}"
        )


def check_trials_of(audit: Audit, made: Mechanism, model: nn.Module, dataset: data.Dataset) -> None:
    """Refuse a defense that cannot train this model, or too few trials to certify anything.

    Raises:
        ConfigError: In one sentence.
    """
    try:
        check_fit(made.defense, model, made.local, [audit.batch_size], dataset.form)
    except ValueError as error:
        raise ConfigError(f"defense.{error}") from None
    delta = audit.delta or made.defense.promise.delta or 1e-5
    least = 2 * trials_for(0.0, delta=delta, confidence=audit.confidence)
    if audit.trials < least:
        raise ConfigError(
            f"audit.trials: must be at least {least} of each hypothesis to certify anything at "
            f"{100 * audit.confidence:g} %, as half of them choose what is looked at, got "
            f"{audit.trials}"
        )


def check_canaries(
    audit: Audit, dataset: data.Dataset, made: Mechanism, relation: Relation
) -> None:
    """Refuse canaries that are unknown or do not go with the question.

    Raises:
        ConfigError: In one sentence.
    """
    for name in canary_names(audit, dataset, relation, takes_any=made.takes_any):
        if name not in (*RECORDS, *CHOSEN):
            hint = nearest(name, (*RECORDS, *CHOSEN))
            raise ConfigError(f"audit.canary: must be a known name, got '{name}'; {hint}")
        if name in CRAFTED and dataset.vocabulary is not None:
            raise ConfigError(
                f"audit.canary: '{name}' must go with records of numbers, got texts; 'natural' "
                "looks for one"
            )
        if name == "opposite" and audit.rounds < 2:
            raise ConfigError("audit.canary: 'opposite' must have rounds ≥ 2, got rounds = 1")
        if name == "opposite" and audit.view == "last":
            raise ConfigError(
                "audit.canary: 'opposite' must go with view = rounds, because it cancels in the "
                "last model, got view = last"
            )
        if name == "microbatch" and (audit.batch_size < 2 or relation.replaces):
            raise ConfigError(
                "audit.canary: 'microbatch' must have batch_size ≥ 2 and a record that is there or "
                f"not, got batch_size = {audit.batch_size} and '{relation}'"
            )
        if name in CHOSEN and not made.takes_any:
            raise ConfigError(
                f"audit.canary: '{name}' must go with defenses that take any gradient, "
                f"got {made.defense.name}"
            )
        if name == "canife" and audit.column is not None:
            raise ConfigError("audit.canary: 'canife' must ask about a record, got audit.column")


def encoding_of(audit: Audit, dataset: data.Dataset) -> Encoding:
    """Return how the two values of the attribute in question stand in the inputs.

    Raises:
        ConfigError: The column or a value is unknown.
    """
    name = str(audit.column)
    if name not in dataset.attributes:
        hint = nearest(name, dataset.attributes) if dataset.attributes else "there is none"
        raise ConfigError(f"audit.column: must be a categorical input, got '{name}'; {hint}")
    attribute = dataset.attributes[name]
    values = audit.values or attribute.values[:2]
    for value in values:
        if value not in attribute.values:
            hint = nearest(value, attribute.values)
            raise ConfigError(f"audit.values: must be values of {name}, got '{value}'; {hint}")
    absent, present = (attribute.codes[attribute.values.index(value)] for value in values)
    return Encoding(torch.tensor(attribute.columns), absent, present)
