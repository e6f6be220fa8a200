"""EB-GLS: label counts by generalised least squares with an empirical-Bayes prior.

fedsim's own. Builds on the identity behind all label attacks (papers: Wainakh et al., PoPETs 2022;
Ma et al., ICLR 2023; the least-squares form of Chen and Vikalo, ICML 2024) and replaces their
point estimates by first and second moments.

Idea: one example of class c adds a random share with mean μ_c and covariance S_c to the head's
gradient, both measured on auxiliary data at the model sent (`moments`). The update is their sum
over n_c examples a class: least squares weighted by the covariance that the counts imply, a prior
around even counts whose spread the update itself decides, then whole numbers that are most likely
(`refine = "search"`) or have the largest expected overlap under a Dirichlet-multinomial prior
(`refine = "gibbs"`). Under noise it is the expected overlap: the spread that makes one noisy update
most likely is often far too large, and so are the most likely counts.

*Server must know*: the update, the number of examples, the protocol, labelled auxiliary data.
*Exact when*: the untrained model's shares hardly vary within a class, at any batch size and with
features of any sign; and where the bounds below leave one answer.
What else it uses: (1) one clean gradient proves n_c > −b_c for its summed bias gradient b, and for
features that are never negative a negative entry in row c proves n_c ≥ 1, after any number of
clean local steps, too; (2) rows of a clean head
gradient add up to zero, so what their sum is, is noise, and its variance enters the covariance;
(3) entries that a pruning client zeroed are left out on both sides; (4) over several local steps
an example's share is its mean along the way from the model sent to the model uploaded
(`trajectory`), which depends on the counts, so that tracing and solving take turns; (5) a client
that uploads weights uses every example once an epoch, so its counts are multiples of the epochs;
(6) where no linear head's gradient was uploaded, or the head's weight is another layer's too, an
example's share is its gradient of all that was uploaded, by autodiff (`projections`); then (1) to
(3) but the zeros of (3) do not apply, and (4) is the mean along the straight way; (7) of several
local steps, what this answer and five published ones were worth on rehearsed clients (`stacked`);
(8) of one noisy gradient all layers, each by the noise that it has (`under_noise`); (9) how much of
the update the counts leave unexplained: evidence is that much weaker, so that a model which knows
the auxiliary examples better than the client's does not mislead.
*Differs from the paper*: there is none.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.stacked import stacked
from adversary.labels import dropped
from adversary.labels.certain import certain, is_clean, noise_variance
from adversary.labels.draws import weighted_overlap_counts, whole_counts
from adversary.labels.gls import Fit, fit_counts
from adversary.labels.head import (
    HeadGradient,
    auxiliary_forward,
    own_head,
)
from adversary.labels.moments import (
    Moments,
    Sketch,
    fit,
    start_moments,
    with_every_class,
)
from adversary.labels.posterior import round_above
from adversary.labels.projections import project
from adversary.labels.reading import bias_is_withheld, end_state
from adversary.labels.trace import Trace, trace_of
from adversary.labels.under_noise import fit_all
from adversary.steps import num_labels
from adversary.workspace import Workspace, workspace
from fedsim.core.types import Auxiliary, Observation, View

Refine = Literal["", "search", "gibbs"]
ROUNDS = 3  # of tracing and solving
NOISY = 0.1  # of the examples' own variance in a sketch of all that was uploaded


def eb_gls(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    refine: Refine = "",
    chains: int = 32,
    steps: int | None = None,
) -> Int[Tensor, " classes"]:
    """Return label counts that add up to the number of labels used.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs and labels.
        generator: Draws the moves of `refine = "gibbs"`; else not used, but where noise is weak.
        refine: How real-valued counts become whole: the most likely ones ("search"), or those of
            largest expected overlap ("gibbs"), which costs tens of milliseconds and is better where
            the model is half trained and the batch small or unbalanced. If empty: the latter under
            noise, else the former, and of several local steps what rehearsals make of them.
        chains: Of `refine = "gibbs"`, side by side.
        steps: Of each chain; 40 per class without, at least 400.

    Raises:
        ValueError: The update moves no trained parameter, or is not finite.
    """
    work = workspace(view, auxiliary)
    problem, solution = solve(view.latest, work)
    if not refine and problem.noisy:
        everything = fit_all(view.latest, work.derived(with_every_class)) if problem.whole else None
        solution = everything or solution
        weighted = weighted_overlap_counts(solution.evidence)
        if weighted is not None:
            return weighted * problem.uses
    if refine or problem.noisy:
        counts = solution.posterior.whole(solution.counts)
    else:
        counts = whole_counts(solution)
    if not refine and problem.whole and not problem.noisy:
        counts = stacked(view.latest, work, counts, _plain)
        counts = round_above(counts.double(), problem.lower, problem.total)
    if refine == "gibbs" or (not refine and problem.noisy):
        steps = steps or max(400, 40 * auxiliary.num_classes)
        counts = solution.evidence.expected_overlap_counts(
            counts, generator, chains=chains, steps=steps
        )
    return counts * problem.uses


def _plain(observation: Observation, work: Workspace) -> Int[Tensor, " classes"]:
    """Return the counts of a client's examples without what rehearsals make of them."""
    return whole_counts(solve(observation, work)[1])


@dataclass(frozen=True)
class Problem:
    """One client's update as a question about counts of examples, each used `uses` times.

    Attributes:
        sketch: The head's gradient per use.
        moments: Of one example, in the same sketch.
        lower: Counts that are certain.
        noise: Covariance of what is no example's.
        total: Number of examples.
        uses: Epochs.
        basis: What made the sketch of a linear head; None for one of all that was uploaded.
        start: Moments at the model sent, where `moments` may be of other models, too.
        noisy: Whether the update has noise beyond rounding.
        whole: Whether all of a linear head's gradient came.
    """

    sketch: Float[Tensor, " kept"]
    moments: Moments
    lower: Float[Tensor, " classes"]
    noise: Float[Tensor, "kept kept"]
    total: int
    uses: int
    basis: Sketch | None
    start: Moments
    noisy: bool = False
    whole: bool = False

    def trace(
        self, observation: Observation, work: Workspace, counts: Float[Tensor, " classes"]
    ) -> Trace | None:
        """Return auxiliary examples along the local training; None where nothing is to follow.

        Args:
            observation: The client's.
            work: With auxiliary inputs and labels.
            counts: Of the client's examples, as far as they are known.

        Raises:
            ValueError: The uploaded model computes NaN or infinity.
        """
        if self.basis is None:
            return None
        return trace_of(observation, work, self.basis, self.start, counts)

    def solve(self) -> Fit:
        """Return evidence, prior and the most likely real-valued counts."""
        return fit_counts(self.sketch, self.moments, self.lower, self.total, noise=self.noise)


def solve(observation: Observation, work: Workspace) -> tuple[Problem, Fit]:
    """Pose a client's update as a problem, trace its local steps, and solve it.

    Raises:
        ValueError: The update moves no trained parameter, or is not finite.
    """
    work = work.derived(with_every_class)
    problem = pose(observation, work)
    solution = problem.solve()
    trace = problem.trace(observation, work, solution.counts)
    if trace is None:
        return problem, solution
    solution = replace(problem, moments=problem.moments.middle(trace.end_moments())).solve()
    for _ in range(ROUNDS):
        trace = trace.following(solution.counts)
        problem = replace(problem, moments=trace.moments(solution.counts))
        solution = problem.solve()
    return problem, solution


def pose(observation: Observation, work: Workspace) -> Problem:
    """Read the update and measure what examples of each class would have done in a first step.

    Raises:
        ValueError: The update moves no trained parameter, or is not finite.
    """
    head, auxiliary = own_head(observation, work), work.auxiliary
    if head is None:
        return pose_projected(observation, work)
    local, uses = observation.local, observation.local.epochs
    clean = is_clean(observation, work, head)
    # Entries too small for a difference of weights are zero, too; a pruned head is not clean.
    rounded = clean and local.upload == "weights"
    mask, outputs = None if rounded else dropped.uploaded(head), work.part(auxiliary_forward)
    if mask is None and bias_is_withheld(head, work):
        mask = dropped.all_but_the_bias(head)
    if mask is None:
        basis, moments = work.part(start_moments)
    else:
        bias = head.bias is not None
        basis, moments = fit(auxiliary, outputs, local.label_smoothing, bias=bias, mask=mask)
    sketch = basis.of_gradient(head) / uses
    if mask is None:
        noise = noise_variance(head) / uses**2
    else:
        square = float(head.weight[mask[0]].square().mean()) / uses**2
        entries = dropped.share_left(head, mask[0], outputs), square
        scale, noise = dropped.left(sketch, moments, head.total // uses, basis.noise, entries)
        sketch = sketch * scale
    return Problem(
        sketch=sketch,
        moments=moments,
        lower=certain(observation, work, head) if mask is None else _zeros(head),
        noise=basis.noise * noise,
        total=head.total // uses,
        uses=uses,
        basis=basis,
        start=moments,
        noisy=noise > 0 if mask is not None else not clean,
        whole=mask is None,
    )


def pose_projected(observation: Observation, work: Workspace) -> Problem:
    """Read all of the update, where no linear head's gradient stands in it.

    Raises:
        ValueError: The update moves no trained parameter, or is not finite.
    """
    projected, uses = project(observation, work), observation.local.epochs
    total = num_labels(observation) // uses
    # Coordinates are in standard deviations of one example.
    noisy = float(projected.noise.mean()) > NOISY * total and end_state(observation) is None
    return Problem(
        sketch=projected.sketch,
        moments=projected.moments,
        lower=torch.zeros(work.auxiliary.num_classes, dtype=torch.float64),
        noise=torch.diag(projected.noise),
        total=total,
        uses=uses,
        basis=None,
        start=projected.moments,
        noisy=noisy,
    )


def _zeros(head: HeadGradient) -> Float[Tensor, " classes"]:
    return torch.zeros(len(head.observed), dtype=torch.float64)


ATTACKS = (
    Attack(
        name="eb-gls",
        family="label",
        infer=eb_gls,
        needs=("inputs", "labels"),
        reads="update",
        summary="moments of each class, least squares, empirical-Bayes prior",
    ),
    Attack(
        name="eb-gls-gibbs",
        family="label",
        infer=partial(eb_gls, refine="gibbs"),
        needs=("inputs", "labels"),
        reads="update",
        summary="EB-GLS, answering with the largest expected overlap",
    ),
)
