"""RLU: recovering labels from local updates, by least squares on erroneous confidence.

H. Chen, H. Vikalo, "Recovering Labels from Local Updates in Federated Learning", ICML 2024.

Idea: an example of class j adds E_jn, its expected probability of class n, to entry n of the
head's bias gradient, and takes 1 from its own; auxiliary data show E. The counts solve
b_n = Σ_j n_j·E_jn − n_n by least squares. Over several local steps E moves: the mean logits follow
μ(τ+1) = μ(τ) − lr·ḡ(τ)·(‖h‖² + 1), where the mean gradient ḡ(τ) depends on the counts sought, so
that simulating and solving take turns, five times.

*Server must know*: the weights sent and the update, the number of examples, labelled auxiliary
data, and for uploaded weights the learning rate, batch size and epochs.
*Exact when*: predictions depend on the label alone, and one step was taken; so for all features
and activations of an untrained head.
*Differs from the paper*: least squares under n ≥ 0 and Σ n = N, not clamped afterwards. E is a mean
over auxiliary examples, not over normal draws with their moments; within the simulation it is
tilted by the shift of the logits. What the simulated end lacks of the uploaded model's logits is
added in proportion to the steps taken, where the paper's code moves labels between classes until
both agree; simulation alone has 12 to 30 points less ASR on unbalanced clients. E is averaged
over at most `points` of the steps, all of the same weight; momentum and FedProx enter the
simulation only. SCAFFOLD and FedDyn are not treated; label smoothing, which the paper leaves out,
is. So is a head without a bias: in place of the bias stand the sums of rows, weighted by the mean
features of auxiliary inputs (`read_residuals`), and E has each example times its weight.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.labels.counts import round_counts
from adversary.labels.head import auxiliary_forward
from adversary.labels.reading import end_forward, read_residuals, steps_per_client
from adversary.labels.trajectory import followed, path, simulate, start_of
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View


def rlu(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    points: int = 10,
    rounds: int = 5,
) -> Int[Tensor, " classes"]:
    """Return label counts, by least squares.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs and labels.
        generator: Not used: the answer is deterministic.
        points: At how many of several local steps E is evaluated, ≥ 1.
        rounds: How often several local steps are simulated.

    Raises:
        ValueError: The model has no linear head, gradient or uploaded model are not finite, or
            `points` is not positive.
    """
    if points < 1:
        raise NotApplicable(f"rlu: points must be at least 1, got {points}")
    latest, work = view.latest, workspace(view, auxiliary)
    residuals = read_residuals(latest, work)
    sums, hit, total = residuals.sums, residuals.hit, residuals.head.total
    weights = residuals.weights(work.part(auxiliary_forward).features)
    start, steps = replace(work.part(start_of), weights=weights), steps_per_client(latest)
    confidence = start.confidence_at(torch.zeros_like(sums))
    counts = solve_counts(confidence, sums, total, hit)
    rows = followed(start.labels, counts / total)
    end = end_forward(latest, work, auxiliary.inputs, rows)
    for turn in range(rounds if end is not None else 0):
        share = counts / total
        if turn and rows is not None:
            rows = followed(start.labels, share)
            end = end_forward(latest, work, auxiliary.inputs, rows)
        assert end is not None
        some = start.of(rows)
        # What those followed lack of all.
        rest = confidence - some.confidence_at(torch.zeros_like(sums))
        shifts = simulate(start, share, latest.local, steps)
        ways = path(shifts, end.logits.double() - some.logits, points)
        along = [some.confidence_at(shift) for _, shift in ways]
        mean = torch.stack(along).mean(dim=0) + rest
        counts = solve_counts(mean, sums, total, hit)
    return round_counts(counts, total)


def solve_counts(
    e: Float[Tensor, "classes classes"],
    sums: Float[Tensor, " classes"],
    total: int,
    hit: float,
) -> Float[Tensor, " classes"]:
    """Return the n ≥ 0 of least squares in Σ_j n_j·e_jn − hit·w_n·n_n = sums_n, with Σ n = total.

    Args:
        e: Row j is what an example of class j adds on average, besides its label.
        sums: As `Residuals.sums`.
        total: How many labels there are.
        hit: What a label takes of an example of weight 1. Row j of `e` adds up to the weight w_j.
    """
    from scipy.optimize import nnls

    classes, heavy = len(e), 1e3  # the sum is kept to one in a million
    left = e.T - hit * torch.diag(e.sum(dim=1))
    equations = torch.cat([left, torch.full((1, classes), heavy, dtype=torch.float64)])
    right = torch.cat([sums, torch.tensor([heavy * total], dtype=torch.float64)])
    return torch.from_numpy(nnls(equations.numpy(), right.numpy(), maxiter=30 * classes)[0])


ATTACKS = (
    Attack(
        name="rlu",
        family="label",
        infer=rlu,
        needs=("inputs", "labels"),
        reads="head",
        summary="counts by least squares, simulating several local steps",
    ),
)
