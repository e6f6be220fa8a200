"""The canaries of an audit, by name."""

from collections.abc import Sequence

from defenses.promise import Relation
from fedsim import data
from fedsim.config.audit import Audit

RECORDS = ("average", "natural", "in-domain", "free", "canife")
CRAFTED = ("in-domain", "free", "canife")  # of them, those found by changing numbers
CHOSEN = ("gradient", "opposite", "microbatch")  # canaries whose gradient is chosen itself


def canary_names(
    audit: Audit, dataset: data.Dataset, relation: Relation, *, takes_any: bool
) -> Sequence[str]:
    """Return the canaries that the config names; without any, those that go with the question.

    Args:
        audit: That section of the config.
        dataset: Of the records.
        relation: Which two data sets are told apart.
        takes_any: Whether the defenses take a gradient that is chosen itself.
    """
    if audit.canary:
        return audit.canary
    domain = ("in-domain",) if dataset.attributes and dataset.inputs.ndim == 2 else ()
    crafted = (*domain, "free") if audit.column else ("canife",)
    crafted = () if dataset.vocabulary else crafted  # none lies between two tokens
    apart = audit.rounds > 1 and audit.view == "rounds"
    shifts = audit.batch_size > 1 and not relation.replaces
    chosen = ["gradient"]
    chosen += [name for name, fits in (("opposite", apart), ("microbatch", shifts)) if fits]
    return ("average", "natural", *crafted, *(chosen if takes_any else ()))
