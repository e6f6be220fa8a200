"""GradViT: gradient matching for vision transformers, smooth across patches.

A. Hatamizadeh, H. Yin, H. R. Roth, W. Li, J. Kautz, D. Xu, P. Molchanov, "GradViT: Gradient
Inversion of Vision Transformers", CVPR 2022. The term of the position embedding: J. Lu, X. S.
Zhang, T. Zhao, X. He, J. Cheng, "APRIL: Finding the Achilles' heel on privacy for vision
transformers", CVPR 2022, the optimisation variant.

Idea: match the gradient of all parameters, that of the position embedding once more by itself, and
hold down the jumps where patches meet; restarts are drawn to what they agree upon.

*Server must know*: the weights sent, the update, the number of examples, the protocol.
*Exact when*: never, because of the priors.
*Differs from the paper*:
- No prior of batch norms: it belongs to a trained CNN of the same pictures, which is not here.
- The distance is the cosine, as in APRIL; GradViT has the squared distance.
- The weights of priors fall as in `inverting-gradients` and count from `late` on; GradViT has
  gradients alone in one half of its steps and priors in the other, over 120,000 steps.
- Restarts are registered as in `see-through-gradients`; labels come from a label attack.
"""

from dataclasses import replace
from functools import partial

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.batch_labels import label_hypotheses
from adversary.inversion.matching import reconstruct
from adversary.inversion.patches import Embedding, embedding_of
from adversary.inversion.problems import Problem, cost_of_matching
from adversary.inversion.seams import Seams
from adversary.inversion.settings import Settings
from adversary.inversion.through_defenses import adapt
from adversary.labels.head import input_shape
from adversary.workspace import Workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.ranges import AboveZero, AtLeastOne, NotNegative
from fedsim.core.types import Auxiliary, Estimate, LocalTraining, View


def grad_vit(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    restarts: AtLeastOne = 2,
    iterations: AtLeastOne = 3000,
    lr: AboveZero = 0.1,
    tv: NotNegative = 1e-3,
    seams: NotNegative = 1e-2,
    positions: NotNegative = 1.0,
    group: NotNegative = 0.0,
    late: NotNegative = 0.0,
    hypotheses: AtLeastOne = 4,
) -> Float[Tensor, "n *shape"] | Estimate:
    """Return the examples of the restart with the lowest loss, with the spread of restarts.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Draws where restarts begin.
        restarts: Descents; ≥ 1.
        iterations: Steps of Adam; ≥ 1.
        lr: Its rate at the beginning, > 0, in units of the inputs.
        tv: Weight of the mean total variation at the end; ≥ 0.
        seams: Weight of the mean jump between patches; ≥ 0.
        positions: Weight of one minus the cosine of the position embedding's gradient; ≥ 0.
        group: Weight of the mean squared distance from the mean of all restarts; ≥ 0.
        late: Share of the steps before which total variation and seams do not count, in [0, 1].
        hypotheses: Labels of a batch that are tried, at most; ≥ 1.

    Raises:
        ValueError: As for `adversary.inversion.matching.reconstruct` or
            `adversary.inversion.patches.embedding_of`, or an option out of range.
    """
    settings = Settings(
        distance="cosine",
        optimiser="adam",
        iterations=iterations,
        restarts=restarts,
        lr=lr,
        tv=tv,
        falls=True,
        seams=seams,
        marked=positions,
        group=group,
        late=late,
        start="grey",
    )
    recover = partial(label_hypotheses, most=hypotheses)
    return reconstruct(
        view, auxiliary, generator, settings, recover=recover, adapt=[_patched, adapt]
    )


def _patched(problem: Problem, work: Workspace, settings: Settings) -> tuple[Problem, Settings]:
    """Return the problem with its position embedding and its seams."""
    embedding, place = work.lasting(_embedding), 0
    seams = Seams(problem.shape[1:], embedding.pixels)
    for name, value in problem.model.weights.items():
        if name == embedding.positions:
            marked = slice(place, place + value.numel())
            return replace(problem, marked=marked, seams=seams), settings
        place += value.numel()
    return replace(problem, seams=seams), settings


def _embedding(auxiliary: Auxiliary) -> Embedding:
    return embedding_of(auxiliary.model, input_shape(auxiliary))


def planned(auxiliary: Auxiliary, local: LocalTraining, count: int) -> str:
    """Return why every update will be refused; empty where it may not be.

    Args:
        auxiliary: The architecture.
        local: How clients train; every protocol will do.
        count: Examples of an update; any number will do.
    """
    del local, count
    try:
        _embedding(auxiliary)
    except NotApplicable as error:
        return f"will refuse every update: {error}"
    return ""


ATTACKS = (
    Attack(
        name="grad-vit",
        family="reconstruction",
        on_device=True,
        infer=grad_vit,
        summary="gradient matching for vision transformers, smooth across patches",
        plan=planned,
        cost=cost_of_matching,
        rehearses=True,
    ),
)
