"""Inverting gradients: the inputs whose gradient points where the client's does.

J. Geiping, H. Bauermeister, H. Dröge, M. Moeller, "Inverting Gradients – How easy is it to break
privacy in federated learning?", NeurIPS 2020, Eq. 4 and section 6 for several local steps.

Idea: maximise the cosine of the simulated and the observed upload, with a prior of total variation
and inputs kept in the range of the data, by Adam. Of uploaded weights the local steps are
simulated.

*Server must know*: the weights sent, the update, the number of examples, the protocol; labelled
auxiliary data to choose settings with.
*Exact when*: never, because of the prior; near, where the gradient says enough of the batch.
*Differs from the paper*:
- Optimiser (Adam on the gradient or on its signs), rate, weight of the prior and start are chosen
  on rehearsed clients with auxiliary examples (`adversary.inversion.tuning`), and a remark says
  which. Without pictures it rehearses with synthetic ones (`adversary.inversion.stand_ins`). Of
  features without labelled examples: Adam, rate 0.1, weight 0.001, within 0.05 of the middle. The
  paper has signs, 0.1, a weight by data set, and N(0, 1).
- The weight of the prior falls on the way and the rate falls along a cosine
  (`adversary.inversion.continuation`); the paper's weight is constant, its rate falls to a tenth at
  3/8, 5/8 and 7/8.
- Inputs are in the data's own range (pixels in [0, 1]) instead of standardised.
- 3,000 iterations instead of 4,800 to 24,000; all restarts go through the model together.
- Labels come from a label attack. Where its posterior leaves others plausible, they are tried too,
  and those of the lowest loss are taken. The paper takes labels as known for larger batches.
- The answer is shrunk towards the mean auxiliary example by a weight that is learned on rehearsed
  clients (`adversary.inversion.shrinkage`), and a remark says which. The paper's is as it is.
- Who knows the defense compares uploads in the way, and with the weight of the prior, that came
  nearest on rehearsed clients (`adversary.inversion.through_defenses`).
"""

from functools import partial
from typing import Any, Literal

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.batch_labels import label_hypotheses
from adversary.inversion.matching import reconstruct
from adversary.inversion.problems import cost_of_matching
from adversary.inversion.settings import Settings
from adversary.inversion.shrinkage import shrunk
from adversary.inversion.through_defenses import adapt
from adversary.inversion.tuning import tuned
from fedsim.core.ranges import AboveZero, AtLeastOne, Count, NotNegative
from fedsim.core.types import Auxiliary, Estimate, View


def inverting_gradients(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    distance: Literal["cosine", "l2", "l1"] = "cosine",
    restarts: AtLeastOne = 2,
    iterations: AtLeastOne = 3000,
    optimiser: Literal["adam", "signed"] | None = None,
    lr: AboveZero | None = None,
    tv: NotNegative | None = None,
    start: Literal["grey", "uniform", "normal"] | None = None,
    prior: str = "pixels",
    hypotheses: AtLeastOne = 4,
    rehearsals: Count = 2,
) -> Float[Tensor, "n *shape"] | Estimate:
    """Return the examples of the restart with the lowest loss, with their uncertainty.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture; inputs and labels to choose settings with, and for the defense.
        generator: Draws where restarts begin.
        distance: Of simulated and observed upload.
        restarts: Descents; ≥ 1.
        iterations: Steps of Adam for each; ≥ 1.
        optimiser: Adam on the gradient, or on its signs. None: chosen (`inversion.tuning`).
        lr: Its rate at the beginning, > 0, in units of the inputs. None: chosen; 0.01 for a prior
            that is a network.
        tv: Weight of the mean total variation at the end, ≥ 0; of inputs that are no images there
            is none. None: chosen.
        start: Within 0.05 of mid-grey, evenly in the data's range, or N(0, 1). None: chosen.
        prior: "pixels", "deep-image", or the user's own "module:function", see
            `adversary.inversion.priors.generative`.
        hypotheses: Labels of a batch that are tried, at most; ≥ 1. Of a batch whose labels the
            head's gradient decides there is one.
        rehearsals: Clients that are attacked with as many iterations to learn by how much to shrink
            answers and how uncertain they are (`inversion.shrinkage`), once for all clients of a
            round; ≥ 0. 0: answers as matching ends, with the spread of restarts.

    Raises:
        ConfigError: The prior cannot be imported.
        ValueError: As for `adversary.inversion.matching.reconstruct`, or an option out of range.
    """
    given: dict[str, Any] = {"optimiser": optimiser, "lr": lr, "tv": tv, "start": start}
    if prior != "pixels":  # a network begins in its own way
        given = {"optimiser": "adam", "lr": lr or 0.01, "tv": 1e-3 if tv is None else tv}
        given["start"] = "grey"
    settings = Settings(
        distance=distance,
        iterations=iterations,
        restarts=restarts,
        falls=True,
        prior=prior,
        **{name: value for name, value in given.items() if value is not None},
    )
    return reconstruct(
        view,
        auxiliary,
        generator,
        settings,
        recover=partial(label_hypotheses, most=hypotheses),
        adapt=(tuned(**given), adapt),
        finish=shrunk(rehearsals),
    )


ATTACKS = (
    Attack(
        name="inverting-gradients",
        family="reconstruction",
        on_device=True,
        infer=inverting_gradients,
        summary="inputs whose gradient points where the client's does, smooth",
        cost=cost_of_matching,
        rehearses=True,
    ),
)
