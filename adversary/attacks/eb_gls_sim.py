"""EB-GLS with simulation: rehearse the client's local training, and correct for what it shows.

fedsim's own; `eb_gls` for several local steps. Rehearsals on auxiliary data are from the code of
Chen and Vikalo, "Recovering Labels from Local Updates in Federated Learning", ICML 2024.

Idea: train the model sent on auxiliary examples with the counts that EB-GLS names, as the protocol
says, and hold its update against what EB-GLS would have expected of those counts: the gap is what
the expectation misses (curved paths, examples learned by heart). Take the gap off the client's
update, solve again, and so on; the gap is averaged over the last rehearsals. The answer is the
average of the rehearsed counts whose whole updates, all layers, came nearest to the client's.

*Server must know*: the update, the number of examples, the protocol, labelled auxiliary data, and
computing time for `simulations` local trainings per client.
*Exact when*: as `eb_gls`; for a single step, and for a model without a linear head, it is
`eb_gls`.
*Differs from the paper*: there is none.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.eb_gls import Problem, solve
from adversary.labels.covariances import Mixture
from adversary.labels.gls import fit_counts
from adversary.labels.head import read_head
from adversary.labels.moments import with_every_class
from adversary.labels.posterior import round_above
from adversary.rehearsal import rehearse
from adversary.workspace import Workspace, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, Observation, Params, View

WINDOW = 4  # rehearsals that the gap is averaged over
NEAREST = 4  # rehearsals that the answer is averaged over


def eb_gls_sim(
    view: View, auxiliary: Auxiliary, generator: Generator, *, simulations: int = 8
) -> Int[Tensor, " classes"]:
    """Return label counts that add up to the number of labels used.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs and labels.
        generator: Draws the rehearsed examples and their order.
        simulations: Rehearsals, each as much work as the client's local training; ≥ 1.

    Raises:
        ValueError: The update is not finite, or `simulations` is not positive.
    """
    if simulations < 1:
        raise NotApplicable(f"eb-gls-sim: simulations must be at least 1, got {simulations}")
    observation, work = view.latest, workspace(view, auxiliary).derived(with_every_class)
    problem, solution = solve(observation, work)
    trace = problem.trace(observation, work, solution.counts)
    if trace is None or observation.update.num_clients > 1:
        return solution.posterior.whole(solution.counts) * problem.uses
    counts, nothing = solution.counts, torch.zeros_like(problem.lower)
    gaps: list[Tensor] = []
    tried: list[tuple[float, Tensor]] = []
    for turn in range(simulations):
        whole = round_above(counts, nothing, problem.total)
        rehearsed = rehearse(observation, work, whole, generator)
        tried.append((distance(rehearsed.update.delta, observation.update.delta), whole))
        gaps.append(gap(rehearsed, work, problem, whole))
        recent = gaps[-min(WINDOW, 1 + turn // 2) :]
        moments = trace.moments(counts)
        # The mean gap has an error of its own, of as many clients as were rehearsed.
        moments = replace(
            moments, covariances=Mixture(((1 + 1 / len(recent), moments.covariances),))
        )
        sketch = problem.sketch - torch.stack(recent).mean(dim=0)
        counts = fit_counts(
            sketch, moments, nothing, problem.total, noise=problem.noise, rounds=1, start=counts
        ).counts
    return nearest(tried, problem.total) * problem.uses


def gap(
    rehearsed: Observation, work: Workspace, problem: Problem, counts: Int[Tensor, " classes"]
) -> Float[Tensor, " kept"]:
    """Return what a rehearsed update has beyond what `eb_gls` expects of its counts."""
    trace = problem.trace(rehearsed, work, counts.double())
    assert trace is not None
    sketch = trace.basis.of_gradient(read_head(rehearsed, work)) / problem.uses
    return sketch - trace.moments(counts.double()).means @ counts.double()


def distance(rehearsed: Params, observed: Params) -> float:
    """Return ‖rehearsed − observed‖² over all floating-point entries."""
    names = [name for name, value in rehearsed.items() if value.is_floating_point()]
    return sum(float((rehearsed[n] - observed[n]).square().sum()) for n in names)


def nearest(tried: list[tuple[float, Tensor]], total: int) -> Int[Tensor, " classes"]:
    """Average the nearest rehearsals' counts; twice as far apart as the first weighs e⁻⁵."""
    best = sorted(tried, key=lambda pair: pair[0])[:NEAREST]
    far = torch.tensor([pair[0] for pair in best], dtype=torch.float64)
    weights = (-5 * (far / far[0].clamp(min=1e-300) - 1)).softmax(dim=0)
    mean = weights @ torch.stack([pair[1] for pair in best]).double()
    return round_above(mean, torch.zeros_like(mean), total)


ATTACKS = (
    Attack(
        name="eb-gls-sim",
        family="label",
        infer=eb_gls_sim,
        needs=("inputs", "labels"),
        reads="update",
        summary="EB-GLS, corrected by rehearsing the local training",
        has_twin=False,
    ),
)
