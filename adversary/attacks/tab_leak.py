"""TabLeak: the records of a table whose gradient points where the client's does.

M. Vero, M. Balunović, D. I. Dimitrov, M. Vechev, "TabLeak: Tabular Data Leakage in Federated
Learning", ICML 2023, algorithm 1 and sections 4.1 to 4.3.

Idea: gradient matching stalls on records, of which some features are discrete and some are not.
While a batch is fitted each categorical column is a softmax, and each number a sigmoid between its
bounds. Independent descents make an ensemble; its batches are put into one order by optimal
assignment, and pooled cell by cell. Where they disagree the answer is not to be trusted, which the
attacker sees without the truth.

*Server must know*: the weights sent, the update, the number of examples, the protocol, and which
inputs encode which column. Auxiliary data tell the bounds of numbers.
*Exact when*: never for sure; near for small batches behind a wide first layer.
*Differs from the paper*:
- 15 members of 500 steps in place of 30 of 1,500, at a rate of 0.2 in place of 0.06, which falls to
  a tenth at 3/8, 5/8 and 7/8 of the way, as in Geiping et al.; a sixth of the cost.
- A member's vote falls with its loss; the paper's are equal. Both choices were made on batches that
  no published table is of.
- Labels come from a label attack, or are fitted as logits; the paper takes them as known.
- Numbers are bounded by the range of auxiliary records and half as much on either side.
- The order of the ensemble is that of the member with the least loss as it is, not projected.
- The uncertainty of a cell is the share of the ensemble that disagrees with the answer, which says
  better than the paper's entropy which cells are wrong (`uncertainty="entropy"`; of a number the
  exponential of the Gaussian entropy over the column's).
- Numbers are rounded where the column is whole.
- Of several local steps each row of a batch stays in the step of its place in every epoch; the
  paper fits a batch per epoch and draws their means together.
"""

from typing import Literal

import torch
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.batch_labels import label_hypotheses
from adversary.inversion.applicable import check_twice
from adversary.inversion.ensembles import Doubt, Relaxation, pooled
from adversary.inversion.matching import match, raced
from adversary.inversion.priors import data_range
from adversary.inversion.problems import problem_of
from adversary.inversion.settings import Settings
from fedsim.core.errors import NotApplicable
from fedsim.core.ranges import AboveZero, AtLeastOne, NotNegative
from fedsim.core.schema import TOLERANCE, Schema
from fedsim.core.types import Auxiliary, Estimate, View

MARGIN = 0.5  # of the range of auxiliary numbers, beyond it on either side


def tab_leak(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    restarts: AtLeastOne = 15,
    iterations: AtLeastOne = 500,
    lr: AboveZero = 0.2,
    sharpness: NotNegative = 5.0,
    uncertainty: Doubt = "agreement",
    labels: Literal["recovered", "joint"] = "recovered",
    hypotheses: AtLeastOne = 4,
) -> Estimate:
    """Return the records that an ensemble agrees on, (n, *shape), and the uncertainty of each cell.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture and the schema.
        generator: Draws where descents begin.
        restarts: Members of the ensemble; ≥ 1. Of one, nothing is said of numbers' uncertainty.
        iterations: Steps of Adam on the gradient's signs, for each; ≥ 1.
        lr: Its rate, in logits; > 0.
        sharpness: A member's vote is (least loss / own loss) to this power; 0, the paper's, for
            equal votes.
        uncertainty: Of a cell: one minus the share of the ensemble that agrees with the answer, or
            the paper's entropy.
        labels: From a label attack, or fitted with the records of a batch of several. One wrong
            label of four spoils all four records.
        hypotheses: Labels of a batch that are tried, at most; ≥ 1. Those of the lowest loss are
            taken. Of a batch whose labels the head's gradient decides there is one.

    Raises:
        ValueError: The columns are not declared or not those of the model's inputs, or as for
            `adversary.inversion.matching.reconstruct`.
    """
    if not sharpness >= 0:
        raise NotApplicable(f"sharpness: must be at least 0, got {sharpness}")
    check_twice(view, auxiliary)
    schema, problem = auxiliary.schema, problem_of(view.latest, auxiliary)
    batch, *shape = problem.shape
    relaxation = _relaxation(schema, auxiliary, tuple(shape))
    settings = Settings(iterations=iterations, restarts=restarts, lr=lr, box=False)
    form = relaxation.form(batch, tuple(shape), problem.model.dtype)
    box = relaxation.low.view(shape), relaxation.high.view(shape)
    recovered = None
    if labels != "joint" or batch == 1:
        rows = label_hypotheses(view, auxiliary, generator, most=hypotheses)
        recovered = rows[raced(problem, settings, rows, generator, box=box, form=form)]
    members, losses = _finite(*match(problem, settings, recovered, generator, box=box, form=form))
    tolerances = _tolerances(relaxation.schema, auxiliary)
    answer = pooled(members, losses, relaxation, tolerances, sharpness=sharpness, by=uncertainty)
    return Estimate(
        answer.records.view(batch, *shape).float(), answer.uncertainty.view(batch, *shape).float()
    )


def _finite(members: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Return the members of finite loss, their batches flat, (m, batch, inputs), and the losses.

    Raises:
        ValueError: There is none.
    """
    finite = losses.isfinite()
    if not bool(finite.any()):
        raise ValueError("matching: a restart must have a finite loss, got none")
    return members[finite].flatten(2), losses[finite]


def _relaxation(schema: Schema | None, auxiliary: Auxiliary, shape: tuple[int, ...]) -> Relaxation:
    size = torch.Size(shape).numel()
    if schema is None or schema.size != size:
        got = "none" if schema is None else f"those of {schema.size} inputs"
        raise NotApplicable(f"columns: must be declared for each of {size} inputs, got {got}")
    low, high = (edge.expand(shape).flatten() for edge in data_range(auxiliary))
    beyond = MARGIN * (high - low)
    return Relaxation(schema, low - beyond, high + beyond)


def _tolerances(schema: Schema, auxiliary: Auxiliary) -> Tensor:
    """Return how far a number may lie from one that it stands for; standardised without inputs."""
    if auxiliary.inputs is not None and len(auxiliary.inputs) > 1:
        return schema.tolerances(auxiliary.inputs)
    return TOLERANCE * schema.numbers.double()


ATTACKS = (
    Attack(
        name="tab-leak",
        family="reconstruction",
        on_device=True,
        infer=tab_leak,
        needs=("schema",),
        summary="records of a table by a pooled ensemble of relaxed descents, with confidence",
        has_twin=False,
    ),
)
