"""Answers that are drawn towards a fixed point, by as much as rehearsed answers are noise.

W. James, C. Stein, "Estimation with quadratic loss", 1961: an estimate whose error is larger than
its signal is improved by shrinking it towards a fixed point. Matching has such estimates where an
upload says little in the iterations given: they correlate with the picture by 0.03 and have the
variance of noise.

Idea: clients are rehearsed with auxiliary examples and attacked in the same way. The weight w that
brings c + w·(answer − c) nearest to their examples is a linear regression, one number. The noise
that it removes is taken to be proportional to the loss of matching: an answer that explains its
upload better than rehearsed ones is shrunk less. What is left of the rehearsed clients' error is
the uncertainty, in proportion to the contrast of all auxiliary examples: its square is a constant
and a share of their variance.

c is the mean auxiliary example, the answer of who has not looked at any update: an answer that is
noise alone becomes as good as that, and no worse. Drawn to one grey level, digits would stay 2.5 dB
below it. Whose picture it was stays visible: grading compares what is left beside the mean
(`adversary.grading.identification`).

The client's own examples are never looked at. An adversary without pictures rehearses with
synthetic ones (`stand_ins`) and shrinks towards the middle of the range.
"""

import warnings
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.inversion.matching import Finish, match
from adversary.inversion.priors import data_range
from adversary.inversion.problems import Problem
from adversary.inversion.rehearsed import rehearsed_victims
from adversary.inversion.settings import Settings
from adversary.inversion.spread import in_order
from adversary.inversion.stand_ins import lacking, with_stand_ins
from adversary.inversion.through_defenses import changed, way_of
from adversary.inversion.tuning import VICTIMS
from adversary.workspace import Workspace
from fedsim.core import progress
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.rng import generator as derived
from fedsim.core.types import Estimate

CLOSE = 0.95  # weights from here on count as 1: an answer that is right is not touched


@dataclass(frozen=True, eq=False, kw_only=True)
class Shrinkage:
    """What rehearsed clients say of answers.

    Attributes:
        mean: What answers are drawn to, the mean auxiliary example.
        noise: Variance of an answer's noise over that of its signal, from 0.
        loss: Mean matching loss of the rehearsed answers.
        floor: Part of the squared error that is the same everywhere.
        share: The rest of it, in the variance of auxiliary examples.
        variance: That variance, shape of one example.
        clients: How many were rehearsed.
        examples: With what.
    """

    mean: Tensor
    noise: float
    loss: float
    floor: float
    share: float
    variance: Tensor
    clients: int
    examples: str

    def weight(self, loss: float) -> float:
        """Return the weight of an answer that ended at a matching loss."""
        worse = loss / self.loss if self.loss > 0 else 1.0
        weight = 1 / (1 + self.noise * max(worse, 0.0))
        return 1.0 if weight >= CLOSE else weight

    def of(self, answer: Float[Tensor, "n *shape"], loss: float) -> Estimate:
        """Return an answer shrunk, with its uncertainty."""
        weight = self.weight(loss)
        mean = self.mean.to(answer.dtype)
        values = answer if weight == 1 else mean + weight * (answer - mean)
        error = (self.floor + self.share * self.variance).sqrt().to(answer.dtype)
        return Estimate(values, error.expand_as(values).clone())

    def sentence(self, loss: float) -> str:
        """Return the weight and how it was chosen."""
        clients = f"{self.clients} rehearsed client{'s' * (self.clients > 1)} with {self.examples}"
        weight = self.weight(loss)
        if weight == 1:
            return f"not shrunk, by {clients}"
        return f"shrunk towards the mean example with weight {weight:.2g}, by {clients}"


def shrunk(clients: int) -> Finish | None:
    """Return what shrinks answers by so many rehearsed clients; None where there are none.

    Raises:
        NotApplicable: Their number is below 0.
    """
    if clients < 0:
        raise NotApplicable(f"rehearsals: must be at least 0, got {clients}")
    return partial(_finished, clients) if clients else None


def _finished(
    clients: int,
    answer: Tensor | Estimate,
    loss: float,
    problem: Problem,
    work: Workspace,
    settings: Settings,
) -> Tensor | Estimate:
    images = len(problem.shape) == 4
    if lacking(work.auxiliary) and not images:
        said = "not shrunk: features are rehearsed with labelled auxiliary examples alone, got none"
        warnings.warn(said, Remark, stacklevel=2)
        return answer
    with progress.part("rehearsing"):
        shrinkage = work.part(rehearsed, problem.shape[0], settings, way_of(problem), clients)
    warnings.warn(shrinkage.sentence(loss), Remark, stacklevel=2)
    return shrinkage.of(answer.values if isinstance(answer, Estimate) else answer, loss)


def rehearsed(work: Workspace, size: int, settings: Settings, way: str, clients: int) -> Shrinkage:
    """Attack rehearsed clients, and return how much of their answers is noise.

    They are others than those that settings are chosen on.

    Args:
        work: The adversary's.
        size: Examples of a client.
        settings: Of the attack.
        way: How uploads are compared, see `through_defenses`.
        clients: How many, at least 1.
    """
    examples = lacking(work.auxiliary)
    mean, variance = _prior(work)
    work = work.derived(with_stand_ins) if examples else work
    victims = rehearsed_victims(work, size, clients, first=VICTIMS)
    victims = [(changed(it, way, work.auxiliary), x, y) for it, x, y in victims]
    answers, losses = _attacked(victims, settings, data_range(work.auxiliary))
    truth = torch.stack([x for _, x, _ in victims]).double()
    guesses = [in_order(a, x) for a, x in zip(answers.double(), truth, strict=True)]
    guess = torch.stack(guesses)
    signal, shown = truth - mean, guess - mean
    weight = float((signal * shown).sum() / shown.square().sum().clamp(min=1e-30))
    weight = min(max(weight, 1e-6), 1.0)
    if weight >= CLOSE:
        weight = 1.0
    errors = (signal - weight * shown).square().mean(dim=(0, 1))
    typical = variance.mean() / signal.square().mean()
    errors = errors * float(typical.nan_to_num(1.0, 1.0))
    floor, share = _explained(errors, variance)
    return Shrinkage(
        mean=mean,
        noise=1 / weight - 1,
        loss=float(losses.double().mean()),
        floor=floor,
        share=share,
        variance=variance,
        clients=clients,
        examples=examples or "auxiliary examples",
    )


def _prior(work: Workspace) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of auxiliary examples.

    Without examples the mean is the middle of the range.
    """
    inputs = work.auxiliary.inputs
    if inputs is not None and len(inputs):
        return inputs.double().mean(dim=0), inputs.double().var(dim=0, correction=0)
    stand_ins = work.derived(with_stand_ins).auxiliary.inputs
    assert stand_ins is not None
    low, high = (edge.double() for edge in data_range(work.auxiliary))
    unit = torch.ones(stand_ins.shape[1:], dtype=torch.float64)
    return unit * (low + high) / 2, unit * stand_ins.double().var()


def _attacked(
    victims: list[tuple[Problem, Tensor, Tensor]], settings: Settings, box: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the answers to rehearsed clients, (clients, batch, *shape), and their losses.

    They are rows of one descent where nothing but the upload differs between them.
    """
    alone = any(it.keep is not None or it.statistics is not None for it, _, _ in victims)
    parts = [[it] for it in victims] if alone else [victims]
    results = []
    for place, part in enumerate(parts):
        problems, _, labels = zip(*part, strict=True)
        observed = torch.cat([problem.observed for problem in problems])
        results.append(
            match(
                replace(problems[0], observed=observed),
                replace(settings, restarts=len(part), group=0.0),
                torch.stack(labels),
                derived(0, "rehearsed answer", place),
                box=box,
            )
        )
    answers, losses = zip(*results, strict=True)
    return torch.cat(answers), torch.cat(losses)


def _explained(errors: Float[Tensor, "*shape"], variance: Tensor) -> tuple[float, float]:
    """Return a ≥ 0 and b ≥ 0 of errors ≈ a + b·variance, by least squares."""
    from scipy.optimize import nnls

    unit = float(variance.mean()) or 1.0
    columns = torch.stack([torch.ones_like(variance), variance / unit], dim=-1).flatten(0, -2)
    (floor, share), _ = nnls(columns.numpy(), errors.flatten().numpy())
    return float(floor), float(share) / unit
