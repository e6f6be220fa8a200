"""What there is to say of a finished round: its measures, and one line for the eyes."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from adversary.grading.families import FAMILIES
from clients.train import load
from fedsim.core.boundary import boundary
from fedsim.core.devices import moved, named, on
from fedsim.core.errors import RunStopped
from fedsim.core.form import IGNORED
from fedsim.core.rng import global_stream
from fedsim.core.rows import Leak, Measure
from fedsim.core.types import Params
from fedsim.core.units import title_of
from fedsim.run.attack_round import ALONE as REHEARSED_ALONE
from fedsim.run.batches import evaluated
from fedsim.run.outcomes import Answers, answers_in
from fedsim.run.prepare import Plan
from strategies import Recording

LARGEST = 700.0  # loss whose exponential is still a number
ALONE = "trained_alone"  # the metric
Failures = Sequence[tuple[str, str]]
"""Client and reason."""


@dataclass(frozen=True)
class Round:
    """What there is to say of a finished round; means are over its clients.

    Attributes:
        leakage: Attack → (mean value, mean blind value) of its headline metric.
        failures: Client and reason.
        answers: What became of each attack on the round's updates.
        alone: Why clients did not train together in the batched engine, with how many.
        rehearsed_alone: The same of clients that attacks rehearsed.
        attack_seconds: Of `seconds`, those of the attacks.
        perplexity: Of a language model.
    """

    number: int
    accuracy: float | None
    leakage: Mapping[str, tuple[float, float]]
    failures: Failures
    seconds: float
    answers: Sequence[Answers] = ()
    alone: Mapping[str, int] = field(default_factory=dict)
    rehearsed_alone: Mapping[str, int] = field(default_factory=dict)
    attack_seconds: float = 0.0
    perplexity: float | None = None


def summary(
    round_: int,
    measures: Sequence[Measure],
    leaks: Sequence[Leak],
    failures: Failures,
    seconds: float,
) -> Round:
    """Sum a round up for the eyes."""
    accuracy, perplexity = (
        next((m.value for m in measures if m.metric == metric and m.split == "test"), None)
        for metric in ("accuracy", "perplexity")
    )
    graded: dict[str, list[Leak]] = {}
    for leak in leaks:
        if leak.value is not None:
            title = title_of(leak.attack, adaptive=leak.adaptive)
            graded.setdefault(title, []).append(leak)
    by_attack = {attack: _headline(rows) for attack, rows in graded.items()}
    means = {
        attack: (
            sum(row.value or 0.0 for row in rows) / len(rows),
            sum(row.blind or 0.0 for row in rows) / len(rows),
        )
        for attack, rows in by_attack.items()
    }
    answers = tuple(answers_in(leaks))
    return Round(
        round_,
        accuracy,
        means,
        tuple(failures),
        seconds,
        answers,
        _counts(measures, ALONE),
        _counts(measures, REHEARSED_ALONE),
        perplexity=perplexity,
    )


def evaluate(plan: Plan, round_: int, params: Params) -> list[Measure]:
    """Measure the global model on the test set, in rounds that are due.

    Raises:
        RunStopped: The model raises something.
    """
    if not plan.config.federation.is_evaluated(round_):
        return []
    device = named(plan.config.engine.device)
    dataset, model = plan.federated.dataset, moved(copy.deepcopy(plan.model), device)
    load(model, params)
    model.eval()
    right, loss, count = 0, 0.0, 0
    with (
        boundary(f"round {round_}", "the model must run on the test set", error=RunStopped),
        torch.no_grad(),
        global_stream(plan.config.seed, "evaluate", round_),
        on(device),
    ):
        size = evaluated(dataset.form)
        parts = (each.split(size) for each in (dataset.test_inputs, dataset.test_y))
        batches = zip(*parts, strict=True)
        for batch in batches:
            inputs, labels = moved(batch, device)
            logits = model(inputs)
            right += int((logits.argmax(dim=1) == labels).sum())
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            count += int((labels != IGNORED).sum())
    measures = [
        Measure(round_, "test", "accuracy", right / count),
        Measure(round_, "test", "loss", loss / count),
    ]
    if dataset.targets is not None:
        perplexity = math.exp(min(loss / count, LARGEST))
        measures.append(Measure(round_, "test", "perplexity", perplexity))
    return measures


def costs(round_: int, recording: Recording, train_seconds: float) -> list[Measure]:
    """Return each upload's norm, who is in a sum, who failed, and the seconds of training."""
    norms = recording.norms
    return [
        *(Measure(round_, "client", "update_norm", value, name) for name, value in norms.items()),
        *(
            Measure(round_, "client", "summed", 1.0, name)
            for name in recording.members
            if name not in norms
        ),
        *(
            Measure(round_, "client", "failed", 1.0, name, reason)
            for name, reason in recording.failures
        ),
        Measure(round_, "server", "train_seconds", train_seconds),
    ]


def one_by_one(round_: int, alone: Mapping[str, int]) -> list[Measure]:
    """Return how many clients did not train together, a row per reason."""
    return [
        Measure(round_, "server", ALONE, float(count), None, reason)
        for reason, count in sorted(alone.items())
    ]


def _counts(measures: Sequence[Measure], metric: str) -> dict[str, int]:
    return {m.reason or "": int(m.value or 0) for m in measures if m.metric == metric}


def _headline(rows: Sequence[Leak]) -> list[Leak]:
    """Return an attack's rows of the metric that the report ranks it by."""
    family = FAMILIES.get(rows[0].family)  # an audit of the round has none
    optional = () if family is None else family.optional[:1]
    first = next((row for row in rows if row.metric in optional), rows[0])
    return [row for row in rows if _alike(first, row)]


def _alike(left: Leak, right: Leak) -> bool:
    """Return whether a mean may be taken of both: of one metric, and both pooled or neither."""
    return left.metric == right.metric and (left.client is None) == (right.client is None)
