"""The canaries of an audit, by name."""

from collections.abc import Sequence

from fedsim import data
from fedsim.config.audit import Audit

RECORDS = ("average", "natural", "in-domain", "free", "canife")
CHOSEN = ("gradient", "opposite")  # canaries whose gradient is chosen itself


def canary_names(audit: Audit, dataset: data.Dataset, *, takes_any: bool) -> Sequence[str]:
    """Return the canaries that the config names; without any, those that go with the question.

    Args:
        audit: That section of the config.
        dataset: Of the records.
        takes_any: Whether the defenses take a gradient that is chosen itself.
    """
    if audit.canary:
        return audit.canary
    domain = ("in-domain",) if dataset.attributes and dataset.inputs.ndim == 2 else ()
    crafted = (*domain, "free") if audit.column else ("canife",)
    apart = audit.rounds > 1 and audit.view == "rounds"
    chosen = ("gradient", *(("opposite",) if apart else ()))
    return ("average", "natural", *crafted, *(chosen if takes_any else ()))
