"""The labels of a batch, for reconstructions: a label attack's answer, one entry per example."""

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attacks.eb_gls import eb_gls, solve
from adversary.attacks.idlg import idlg
from adversary.attacks.llg import llg
from adversary.inversion.reading import batch_size
from adversary.labels.counts import largest_remainder
from adversary.labels.posterior import Evidence
from adversary.steps import num_steps
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View

PLAUSIBLE = 10.0  # nats by which other labels may explain a head worse than the best ones


def batch_labels(view: View, auxiliary: Auxiliary, generator: Generator) -> Int[Tensor, " n"]:
    """Return the labels of the client's examples, in order of class.

    Of one example, the class whose head gradient points up; of several, EB-GLS where there are
    auxiliary examples, LLG where there are none. EB-GLS also reads one example's where the model
    does not end in a linear layer, such as behind a temperature.

    Raises:
        ValueError: The attack has no answer.
    """
    size, alone = batch_size(view.latest), auxiliary.inputs is None or auxiliary.labels is None
    attack = idlg if size == 1 else llg if alone else eb_gls
    try:
        counts = attack(view, auxiliary, generator).double()
    except NotApplicable:
        if alone or attack is eb_gls:
            raise
        counts = eb_gls(view, auxiliary, generator).double()
    order = torch.arange(len(counts))
    return _listed(largest_remainder(counts / counts.sum(), size, order))


def label_hypotheses(
    view: View, auxiliary: Auxiliary, generator: Generator, *, most: int
) -> Int[Tensor, "hypotheses n"]:
    """Return the labels of `batch_labels`, and others that the head's gradient leaves plausible.

    The others have one label exchanged, in the order in which EB-GLS's posterior prefers them.
    After one step none is `PLAUSIBLE` less likely; of several steps, which that posterior follows
    only roughly, as many are returned as may be. Of one example, and without auxiliary examples,
    there are none; of one whose label no attack reads, all classes if they are so few.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs and labels, for more than one hypothesis.
        generator: As for `batch_labels`.
        most: Hypotheses; ≥ 1.

    Raises:
        ValueError: The attack has no answer, or `most` is less than 1.
    """
    if most < 1:
        raise NotApplicable(f"hypotheses: must be at least 1, got {most}")
    try:
        labels = batch_labels(view, auxiliary, generator)
    except NotApplicable:
        if batch_size(view.latest) > 1 or auxiliary.num_classes > most:
            raise
        return torch.arange(auxiliary.num_classes)[:, None]
    if most == 1 or len(labels) == 1 or auxiliary.inputs is None or auxiliary.labels is None:
        return labels[None]
    evidence = solve(view.latest, workspace(view, auxiliary))[1].posterior
    counts = torch.bincount(labels, minlength=auxiliary.num_classes).double()
    several = view.latest.local.upload == "weights" and num_steps(view.latest) > 1
    limit = math.inf if several else PLAUSIBLE
    moves = exchanges(evidence, counts, most=most - 1, limit=limit)
    others = [_listed(moved.long()) for moved in moves]
    return torch.stack([labels, *others])


def exchanges(
    evidence: Evidence, counts: Float[Tensor, " classes"], *, most: int, limit: float = PLAUSIBLE
) -> list[Float[Tensor, " classes"]]:
    """Return the most likely counts that are one exchange away, none `limit` nats less likely.

    Taking a label from class a and giving it to class b changes ½nᵀQn − rᵀn by
    ½dᵀQd + dᵀ(Qn − r), d = e_b − e_a.
    """
    q, slope = evidence.quadratic, evidence.quadratic @ counts - evidence.linear
    curved = (q.diagonal()[:, None] + q.diagonal() - q - q.T) / 2
    costs = curved + slope - slope[:, None]  # from row to column
    costs[counts - 1 < evidence.lower - 1e-9] = torch.inf
    costs.fill_diagonal_(torch.inf)
    cheapest = costs.flatten().argsort(stable=True)[:most]
    pairs = [divmod(int(place), len(counts)) for place in cheapest]
    unit = torch.eye(len(counts), dtype=counts.dtype)
    return [
        counts - unit[a] + unit[b]
        for a, b in pairs
        if float(costs[a, b]) <= limit and math.isfinite(float(costs[a, b]))
    ]


def _listed(counts: Int[Tensor, " classes"]) -> Int[Tensor, " n"]:
    return torch.arange(len(counts)).repeat_interleave(counts)
