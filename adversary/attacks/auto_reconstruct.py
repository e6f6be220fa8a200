"""Auto-reconstruct: the strongest reconstruction that a model and a protocol allow, and why.

fedsim's own. The attacks that it chooses from carry their papers.

Idea: which attack is exact follows from the first layer, the chain of layers, the activations, the
batch and the local steps. The attacks that fit (`adversary.attacks.reconstruction_rules`) run in
order of exactness until an answer explains the upload to its rounding. Else the answer counts whose
simulated upload is nearest to the client's.

*Server must know*: the weights sent, the update, how many examples it is of, and the protocol.
*Exact when*: one of the attacks is. What was chosen and why is said before training and with every
answer.
*Differs from the paper*: there is none.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.allotments import Allotted, allotted, fitting, planned
from adversary.attacks.batch_labels import batch_labels
from adversary.attacks.joint_solution import Solution
from adversary.attacks.reconstruction_rules import Rule
from adversary.costs import beyond_memory
from adversary.inversion.applicable import check_inputs
from adversary.inversion.evidence import UNVERIFIED, Evidence
from adversary.inversion.reading import batch_size
from adversary.inversion.setting import Setting, setting_of
from adversary.workspace import Workspace, workspace
from fedsim.core.boundary import PASSING, explained
from fedsim.core.errors import NotApplicable, Remark, remarks_of_attacks
from fedsim.core.ranges import AboveZero, AtLeastOne
from fedsim.core.types import Auxiliary, Estimate, LocalTraining, View


@dataclass(frozen=True, eq=False)
class Tried:
    """What an attack answered.

    Attributes:
        rule: Of the attack.
        answer: As it is.
        inputs: In it, shape (k, *shape), at most as many as examples.
        misfit: Distance of its simulated upload from the client's; None where not computed.
        remark: Its own; empty without.
    """

    rule: Rule
    answer: Tensor | Estimate
    inputs: Tensor
    misfit: float | None
    remark: str = ""


def auto_reconstruct(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    budget: AboveZero = 1.0,
    iterations: AtLeastOne = 3000,
    steps: AtLeastOne = 40,
) -> Float[Tensor, "n *shape"] | Estimate:
    """Return the answer that explains the update best, of the attacks that fit.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Of the attacks, one after another.
        budget: 10¹² floating-point operations for one client and round, as estimated from shapes;
            > 0. 1 is about a minute of one core.
        iterations: Of gradient matching, at most; never more than the attack's own default; ≥ 1.
        steps: Of the joint attack, likewise; ≥ 1.

    Raises:
        ValueError: No attack fits, or none has an answer; says why.
    """
    if not budget > 0:
        raise NotApplicable(f"budget: must be above 0, got {budget}")
    for name, value in (("iterations", iterations), ("steps", steps)):
        if value < 1:
            raise NotApplicable(f"{name}: must be at least 1, got {value}")
    check_inputs(view, auxiliary)
    count = batch_size(view.latest)
    setting = workspace(view, auxiliary).part(_setting, count)
    rules = fitting(setting)
    evidence = _evidence(view, auxiliary, generator, setting)
    parts = allotted(rules, setting, budget, iterations, steps)
    tried, reasons = _tried(parts, view, auxiliary, generator, evidence)
    best = _best(tried, evidence, count)
    warnings.warn(_sentence(best, tried, reasons, setting, evidence), Remark, stacklevel=2)
    return best.answer


def _tried(
    parts: Sequence[Allotted],
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    evidence: Evidence,
) -> tuple[list[Tried], list[str]]:
    """Return the answers up to the first that settles, and why others gave none.

    Raises:
        ValueError: None has an answer; NotApplicable where all refused.
    """
    tried: list[Tried] = []
    reasons: list[str] = []
    refused, count = True, evidence.problem.shape[0]
    for part in parts:
        rule = part.rule
        try:
            if part.options is None:
                raise NotApplicable(part.reason)
            _check_memory(rule, auxiliary, count, view.latest.local)
            with remarks_of_attacks() as remarks:
                result = rule.infer(view, auxiliary, generator, **part.options)
        except PASSING:
            raise
        except Exception as error:  # the next attack may have an answer
            reasons.append(f"{rule.name}: {explained(error)}")
            refused = refused and isinstance(error, NotApplicable)
            continue
        tried.append(_held(rule, result, remarks, evidence))
        if _settles(tried[-1], evidence, count):
            break
    if not tried:
        sentence = f"auto-reconstruct: an attack must answer, got {'; '.join(reasons)}"
        raise NotApplicable(sentence) if refused else ValueError(sentence)
    return tried, reasons


def _held(
    rule: Rule, result: Tensor | Estimate | Solution, remarks: Sequence[str], evidence: Evidence
) -> Tried:
    """Return an answer, held to the upload."""
    if isinstance(result, Solution):
        answer, remarks = result.answer, (*remarks, result.remark)
    else:
        answer = result
    inputs = answer.values if isinstance(answer, Estimate) else answer
    if isinstance(result, Solution):  # with labels and an order of its own
        misfit = result.misfit
    else:  # what a certified attack answers is in an order of its own, too
        misfit = evidence.misfit(inputs, ordered=rule.ordered and not rule.certified)
    return Tried(rule, answer, inputs, misfit, "; ".join(filter(None, remarks)))


def _setting(work: Workspace, count: int) -> Setting:
    return setting_of(work.auxiliary, work.local, count)


def _evidence(view: View, auxiliary: Auxiliary, generator: Generator, setting: Setting) -> Evidence:
    """Return what answers are held to; without labels where steps of examples are not known."""
    if not setting.ordered:
        return Evidence(view.latest, auxiliary, None)
    try:
        labels = batch_labels(view, auxiliary, generator)
    except PASSING:
        raise
    except Exception:  # of one example all labels are tried
        labels = None
    return Evidence(view.latest, auxiliary, labels)


def _check_memory(rule: Rule, auxiliary: Auxiliary, count: int, local: LocalTraining) -> None:
    """Refuse an attack that would take more than half of the memory that is free.

    Raises:
        NotApplicable: It would.
    """
    from adversary.attacks import ATTACKS  # which imports this module

    alike = min(count, local.batch_size)  # of what is simulated one step's graph
    estimate = ATTACKS[rule.name].estimate(auxiliary, alike)
    if estimate is not None and (reason := beyond_memory(rule.name, estimate, None)):
        raise NotApplicable(reason)


def _settles(last: Tried, evidence: Evidence, count: int) -> bool:
    """Return whether nothing is to be gained from further attacks."""
    if last.rule.certified:
        return len(last.inputs) == count
    if last.misfit is None:
        return False
    return last.misfit <= max(evidence.enough, last.rule.enough)


def _best(tried: Sequence[Tried], evidence: Evidence, count: int) -> Tried:
    """Return the answer of the least misfit; parts that are certain replace those of others."""
    last = tried[-1]
    if _settles(last, evidence, count):
        return last
    whole = [it for it in tried if len(it.inputs) == count]
    parts = [it for it in tried if len(it.inputs) < count]
    if not whole:
        return max(parts, key=lambda it: len(it.inputs))
    from scipy.optimize import linear_sum_assignment

    best = min(whole, key=lambda it: math.inf if it.misfit is None else it.misfit)
    if not parts:
        return best
    certain = max(parts, key=lambda it: len(it.inputs))
    apart = torch.cdist(certain.inputs.flatten(1).double(), best.inputs.flatten(1).double())
    rows, places = linear_sum_assignment(apart.square().numpy())
    inputs = best.inputs.clone()
    inputs[torch.as_tensor(places)] = certain.inputs[torch.as_tensor(rows)].to(inputs.dtype)
    misfit = evidence.misfit(inputs)
    remark = f"{len(certain.inputs)} of {count} by {certain.rule.name}"
    return Tried(best.rule, inputs, inputs, misfit, "; ".join(filter(None, (remark, best.remark))))


def _sentence(
    best: Tried,
    tried: Sequence[Tried],
    reasons: Sequence[str],
    setting: Setting,
    evidence: Evidence,
) -> str:
    """Return what was chosen and why, how well it explains the upload, and what else was tried."""
    parts = [f"{best.rule.name}, because {best.rule.applies(setting)}", best.remark]
    if best.misfit is not None:
        parts.append(f"its simulated upload {evidence.verdict(best.misfit)}")
    elif not best.rule.certified:
        parts.append(f"{UNVERIFIED}: its upload cannot be simulated")
    others = [it for it in tried if it.rule is not best.rule]
    parts += [
        f"{it.rule.name} differs by {it.misfit:.1g}" for it in others if it.misfit is not None
    ]
    return "; ".join(filter(None, [*parts, *(f"not {reason}" for reason in reasons)]))


ATTACKS = (
    Attack(
        name="auto-reconstruct",
        family="reconstruction",
        on_device=True,
        infer=auto_reconstruct,
        summary="the strongest reconstruction that the model and protocol allow, and why",
        plan=planned,
        rehearses=True,
    ),
)
