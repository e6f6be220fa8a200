"""What a run says before its first round, of data and attacks."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from fedsim.core.local_training import TITLES

ENOUGH = 13  # auxiliary examples of a class, measured on ten heads: docs/results/labels.md
SHOWS_NOTHING = "a value near the blind guess shows no protection"


def expectations(plan: Any) -> Iterator[str]:
    """Yield what became of a user's data, where it runs, and what to expect of attacks.

    Attacks that cannot read the uploads, those that cost much, what those that choose will choose,
    and why reconstruction will be hard.
    """
    from fedsim.run.costs import expected_costs, remarks
    from fedsim.run.readable import unreadable

    yield from plan.federated.dataset.remarks
    engine = plan.config.engine
    if engine.device != "cpu":
        together = "" if engine.batch is None else f", {engine.batch} clients at a time"
        attacks = "attacks run the model there"
        if engine.device == "mps":
            attacks = "attacks rehearse clients there, and need the CPU's float64 for the rest"
        yield f"engine.device: clients train on {engine.device}{together}; {attacks}"
    for reason, titles in unreadable(plan).items():
        yield f"{', '.join(titles)} will refuse every update: {reason}"
    yield from _of_optimizer(plan)
    yield from _of_few_auxiliary(plan)
    if costs := expected_costs(plan):
        yield from remarks(plan, costs)
    if any(attack.family == "reconstruction" for attack in plan.attacks):
        yield from _of_reconstruction(plan)


def _of_optimizer(plan: Any) -> Iterator[str]:
    """Yield which attacks read an update as what it is not."""
    if plan.local.sums_gradients:
        return
    titles = [
        attack.title for attack in plan.attacks if not (attack.any_optimizer or attack.baseline)
    ]
    if titles:
        yield (
            f"local.optimizer: {', '.join(titles)} {'reads' if len(titles) == 1 else 'read'} an "
            "update as a sum of gradients, which "
            f"{TITLES[plan.local.optimizer]} does not make; {SHOWS_NOTHING}"
        )


def _of_few_auxiliary(plan: Any) -> Iterator[str]:
    """Yield which attacks on labels estimate classes from too few auxiliary examples."""
    auxiliary = plan.auxiliary
    if auxiliary.labels is None or auxiliary.per_token:
        return
    count, classes = len(auxiliary.labels), auxiliary.num_classes
    titles = [
        attack.title
        for attack in plan.attacks
        if attack.family == "label" and "labels" in attack.needs and not attack.adaptive
    ]
    if titles and count < ENOUGH * classes:
        yield (
            f"auxiliary: {count} examples of {classes} classes are few for {', '.join(titles)}; "
            f"with fewer than {ENOUGH} a class, {SHOWS_NOTHING}"
        )


def _of_reconstruction(plan: Any) -> Iterator[str]:
    """Yield what attacks will choose for a client of median size, and what stands in their way."""
    from fedsim.explain import hindrances

    local = plan.local
    count = int(median(len(rows) for rows in plan.federated.clients))
    used = min(count, local.batch_size) if local.upload == "gradient" else count
    for attack in plan.attacks:
        if not attack.adaptive and (said := attack.planned(plan.auxiliary, local, used)):
            yield f"{attack.title} {said}"
        if (cost := attack.estimate(plan.auxiliary, used)) is not None and cost.is_large:
            yield f"attack.{attack.title}: up to {cost} for an answer, as estimated from shapes"
    shape, weights = plan.federated.dataset.input_shape, plan.model.state_dict()
    if several := hindrances(plan.model, weights, shape, local, count):
        heads = "; ".join(f"{it.name} ({it.value})" for it in several)
        yield f"reconstruction will be hard: {heads}. The report explains each."
