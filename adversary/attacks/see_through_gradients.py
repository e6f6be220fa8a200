"""See through gradients (GradInversion): restarts that are drawn to what they agree upon.

H. Yin, A. Mallya, A. Vahdat, J. M. Alvarez, J. Kautz, P. Molchanov, "See through Gradients: Image
Batch Recovery via GradInversion", CVPR 2021, Eqs. 2, 8 and 11.

Idea: the squared distance of gradients, with priors of total variation and energy; several
descents from different seeds, each pulled to the mean of all, because what one of them invents the
others do not.

*Server must know*: the weights sent, the update, the number of examples, the protocol; knowing the
defense, also labelled auxiliary data.
*Exact when*: never, because of the priors.
*Differs from the paper*:
- Restarts are registered by pairing examples of one label and by whole shifts
  (`adversary.inversion.registration`), the paper's by RANSAC-flow; no noise in the steps.
- Where a client uploads buffers, features are held to the statistics of its own batches
  (`adversary.inversion.batch_norms`); else, as in the paper, to the running ones.
- Weights are those of mean penalties and of a squared distance relative to the observed one's
  length; the paper's belong to ImageNet and sums.
- Adam is given signs, as by Geiping et al., which at a thousand steps comes further.
- The answer is shrunk towards the mean auxiliary example (`adversary.inversion.shrinkage`).
- Labels come from a label attack (the paper's own is the attack `grad-inversion`).
"""

from functools import partial

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.batch_labels import label_hypotheses
from adversary.inversion.matching import reconstruct
from adversary.inversion.problems import cost_of_matching
from adversary.inversion.settings import Settings
from adversary.inversion.shrinkage import shrunk
from adversary.inversion.through_defenses import adapt
from fedsim.core.ranges import AboveZero, AtLeastOne, Count, NotNegative
from fedsim.core.types import Auxiliary, Estimate, View


def see_through_gradients(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    restarts: AtLeastOne = 4,
    iterations: AtLeastOne = 1200,
    lr: AboveZero = 0.1,
    tv: NotNegative = 0.01,
    energy: NotNegative = 1e-4,
    group: NotNegative = 0.01,
    norms: NotNegative = 10.0,
    hypotheses: AtLeastOne = 4,
    rehearsals: Count = 2,
) -> Float[Tensor, "n *shape"] | Estimate:
    """Return the examples of the restart with the lowest loss, with their uncertainty.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture; with its defense, also inputs and labels.
        generator: Draws where restarts begin.
        restarts: Descents; ≥ 1.
        iterations: Steps of Adam; ≥ 1.
        lr: Its rate, > 0.
        tv: Weight of the mean total variation, ≥ 0; of inputs that are no images there is none.
        energy: Weight of the mean square; ≥ 0.
        group: Weight of the mean squared distance from the mean of all restarts; ≥ 0.
        norms: Weight of the distance of the inputs of batch norms from the mean and variance that
            are known of them; ≥ 0. Of models without batch norms, or without statistics, none.
        hypotheses: Labels of a batch that are tried, at most; ≥ 1.
        rehearsals: Clients on which it is learned by how much to shrink answers, as in
            `inverting_gradients`, by one descent each; ≥ 0.

    Raises:
        ValueError: As for `adversary.inversion.matching.reconstruct`, or an option out of range.
    """
    settings = Settings(
        distance="l2",
        iterations=iterations,
        restarts=restarts,
        lr=lr,
        tv=tv,
        energy=energy,
        group=group,
        norms=norms,
    )
    recover = partial(label_hypotheses, most=hypotheses)
    return reconstruct(
        view,
        auxiliary,
        generator,
        settings,
        recover=recover,
        adapt=[adapt],
        finish=shrunk(rehearsals),
    )


ATTACKS = (
    Attack(
        name="see-through-gradients",
        family="reconstruction",
        on_device=True,
        infer=see_through_gradients,
        summary="GradInversion: restarts drawn to what they agree upon",
        cost=cost_of_matching,
        rehearses=True,
    ),
)
