"""Start, optimiser, rate and prior of gradient matching, chosen on auxiliary examples.

fedsim's own. What is best depends on the network, on its weights and on the number of iterations.
The adversary makes updates of the model sent from auxiliary examples, reconstructs them with each
value of one setting after the other, and keeps what came nearest to examples that it knows; it
never looks at the client's. All values of a setting and all rehearsed clients are rows of one
descent. A choice is made once per model sent and serves all of its clients. An adversary without
pictures rehearses with synthetic ones (`stand_ins`), and draws labels where it has none; there the
first value of a setting stays unless another is ahead by `MARGIN`.

*Cost*: 12 rows of `ITERATIONS` steps, 60 % of an attack on one client with the default options.
"""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from adversary.inversion.matching import Adapt, match
from adversary.inversion.priors import data_range
from adversary.inversion.problems import Problem
from adversary.inversion.rehearsed import nearest_error, rehearsed_victims
from adversary.inversion.settings import Settings
from adversary.inversion.stand_ins import lacking, with_stand_ins
from adversary.workspace import Workspace, undefended
from fedsim.core.errors import Remark
from fedsim.core.rng import generator as derived
from fedsim.core.types import Auxiliary

VICTIMS = 2  # rehearsed clients
MARGIN = 1.0  # dB by which others must be ahead of the first values on stand-ins
ITERATIONS = 300  # of a rehearsed attack, or the attack's own where these are fewer
STEPS: tuple[tuple[Literal["adam", "signed"], float], ...] = (
    ("adam", 0.1),
    ("adam", 0.03),
    ("signed", 0.03),
)
PRIORS = (1e-3, 1e-2, 1e-4)
STARTS = ("grey", "uniform")
"""Optimisers with their rates in ranges of the data, weights of the total variation, and starts;
the first of each is taken of features without labelled examples, which have no stand-ins."""


@dataclass(frozen=True)
class Choice:
    """What came nearest in rehearsals.

    Attributes:
        settings: With what was chosen.
        tried: Settings and the mean PSNR of their rehearsed guesses, in dB of the data's range.
        iterations: Of each rehearsed attack.
        examples: What was rehearsed with.
    """

    settings: Settings
    tried: tuple[tuple[Settings, float], ...]
    iterations: int
    examples: str = "auxiliary examples"

    def __str__(self) -> str:
        best, nearest = self.settings, dict(self.tried)[self.settings]
        return (
            f"matching by {best.optimiser} with lr {best.lr:.3g} and tv {best.tv:.3g} from "
            f"{best.start}, chosen on {VICTIMS} rehearsed clients with {self.examples} "
            f"({nearest:.1f} dB after {self.iterations} iterations)"
        )


def tuned(
    *,
    optimiser: str | None = None,
    lr: float | None = None,
    tv: float | None = None,
    start: str | None = None,
) -> Adapt:
    """Return what chooses settings by rehearsals; those that are given stay.

    Of features, where there are no labelled auxiliary examples, it takes the first of the values
    that it would have tried.

    Args:
        optimiser: As in `Settings`.
        lr: The same.
        tv: The same.
        start: The same.
    """
    given = (optimiser, lr, tv, start)

    def adapt(problem: Problem, work: Workspace, settings: Settings) -> tuple[Problem, Settings]:
        work = work.derived(undefended)
        size, auxiliary = problem.shape[0], work.auxiliary
        stages = _stages(data_range(auxiliary), len(problem.shape) == 4, *given)
        settings = _first(settings, stages)
        examples = lacking(auxiliary)
        images = len(problem.shape) == 4
        if max(map(len, stages)) == 1 or (examples and not images):
            return problem, settings
        work = work.derived(with_stand_ins) if examples else work
        margin = MARGIN if examples else 0.0
        choice = work.part(choose, size, settings, given, margin)
        choice = replace(choice, examples=examples) if examples else choice
        warnings.warn(str(choice), Remark, stacklevel=2)
        return problem, choice.settings

    return adapt


def choose(
    work: Workspace,
    size: int,
    settings: Settings,
    given: tuple[Any, Any, Any, Any],
    margin: float = 0.0,
) -> Choice:
    """Rehearse with each value of one setting after the other, and keep the nearest.

    Args:
        work: With auxiliary inputs and labels.
        size: Examples of a client.
        settings: What stays is taken from them.
        given: As the options of `tuned`, in that order.
        margin: dB by which a value must be ahead of the first one of its setting.
    """
    victims = rehearsed_victims(work, size, VICTIMS)
    images = len(victims[0][0].shape) == 4
    stages = _stages(data_range(work.auxiliary), images, *given)
    iterations = min(ITERATIONS, settings.iterations)
    settings, scores = _first(settings, stages), dict[Settings, float]()
    for stage in stages:
        candidates = [replace(settings, **changes) for changes in stage]
        fresh = [it for it in candidates if it not in scores]
        scores |= _scores(fresh, victims, iterations, work.auxiliary)
        best = max(candidates, key=lambda it: scores[it])
        ahead = scores[best] >= scores[candidates[0]] + margin
        settings = best if ahead else candidates[0]
    return Choice(settings, tuple(scores.items()), iterations)


def _first(settings: Settings, stages: list[list[dict[str, Any]]]) -> Settings:
    return replace(settings, **{name: it for stage in stages for name, it in stage[0].items()})


def _stages(
    box: tuple[Tensor, Tensor],
    images: bool,
    optimiser: str | None,
    lr: float | None,
    tv: float | None,
    start: str | None,
) -> list[list[dict[str, Any]]]:
    """Return what is tried, setting after setting."""
    width = float((box[1] - box[0]).float().mean())
    steps = [
        {"optimiser": optimiser or kind, "lr": lr or rate * width}
        for kind, rate in STEPS
        if optimiser in (None, kind)
    ]
    steps = [step for place, step in enumerate(steps) if step not in steps[:place]]
    priors = (tv,) if tv is not None else PRIORS if images else (0.0,)
    starts = STARTS if start is None else (start,)
    return [steps, [{"tv": value} for value in priors], [{"start": value} for value in starts]]


def _scores(
    candidates: list[Settings],
    victims: list[tuple[Problem, Tensor, Tensor]],
    iterations: int,
    auxiliary: Auxiliary,
) -> dict[Settings, float]:
    """Return the mean PSNR of each; those that differ in rate and prior are rows of one descent."""
    box = data_range(auxiliary)
    width = float((box[1] - box[0]).square().mean())
    images = len(victims[0][0].shape) == 4
    per_row = lambda values: torch.tensor(values).repeat_interleave(len(victims))
    groups: dict[Settings, list[Settings]] = {}
    for it in candidates:
        groups.setdefault(replace(it, lr=1.0, tv=0.0), []).append(it)
    scores = {}
    for shared, group in groups.items():
        rows = len(group) * len(victims)
        problems, inputs, labels = zip(*victims, strict=True)
        observed = torch.cat([problem.observed for problem in problems])
        guesses, _ = match(
            replace(problems[0], observed=observed.repeat(len(group), 1)),
            replace(shared, restarts=rows, iterations=iterations, group=0.0),
            torch.stack(labels).repeat(len(group), 1),
            derived(0, "rehearsed attack"),
            box=box,
            weights=per_row([it.tv for it in group]) if images else None,
            rates=per_row([it.lr for it in group]),
        )
        for it, answers in zip(group, guesses.split(len(victims)), strict=True):
            errors = map(nearest_error, answers, inputs)
            psnrs = [-10 * math.log10(max(error, 1e-30) / width) for error in errors]
            scores[it] = sum(psnrs) / len(psnrs)
    return scores
