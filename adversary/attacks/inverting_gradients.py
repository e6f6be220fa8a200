"""Inverting gradients: the inputs whose gradient points where the client's does.

J. Geiping, H. Bauermeister, H. Dröge, M. Moeller, "Inverting Gradients – How easy is it to break
privacy in federated learning?", NeurIPS 2020, Eq. 4 and section 6 for several local steps.

Idea: maximise the cosine of the simulated and the observed upload, with a prior of total variation
and inputs kept in the range of the data, by Adam on the signs of the gradient, whose rate falls to
a tenth at 3/8, 5/8 and 7/8 of the way. Of uploaded weights the local steps are simulated.

*Server must know*: the weights sent, the update, the number of examples, the protocol; knowing the
defense, also labelled auxiliary data.
*Exact when*: never, because of the prior; near, where the gradient says enough of the batch.
*Differs from the paper*:
- Inputs are in the data's own range (pixels in [0, 1]) instead of standardised, the rate of 0.1 is
  in that unit, and restarts begin evenly in that range instead of as N(0, 1).
- 3,000 iterations instead of 4,800 to 24,000; all restarts go through the model together.
- Labels come from a label attack; the paper takes them as known for larger batches.
- Who knows the defense compares uploads in the way, and with the weight of the prior, that came
  nearest on rehearsed clients (`adversary.inversion.through_defenses`).
"""

from typing import Literal

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.batch_labels import batch_labels
from adversary.inversion.matching import Settings, reconstruct
from adversary.inversion.through_defenses import adapt
from fedsim.core.types import Auxiliary, View


def inverting_gradients(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
    *,
    distance: Literal["cosine", "l2", "l1"] = "cosine",
    restarts: int = 2,
    iterations: int = 3000,
    lr: float | None = None,
    tv: float = 0.01,
    prior: str = "pixels",
) -> Float[Tensor, "n *shape"]:
    """Return the examples of the restart with the lowest loss.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture; with its defense, also inputs and labels.
        generator: Draws where restarts begin.
        distance: Of simulated and observed upload.
        restarts: Descents; ≥ 1.
        iterations: Steps of Adam for each; ≥ 1.
        lr: Its rate, > 0; None for 0.1, and 0.01 for a prior that is a network.
        tv: Weight of the mean total variation, ≥ 0; of inputs that are no images there is none.
        prior: "pixels", "deep-image", or the user's own "module:function", see
            `adversary.inversion.priors.generative`.

    Raises:
        ConfigError: The prior cannot be imported.
        ValueError: As for `adversary.inversion.matching.reconstruct`, or an option out of range.
    """
    plain = prior == "pixels"
    settings = Settings(
        distance=distance,
        optimiser="signed" if plain else "adam",
        iterations=iterations,
        restarts=restarts,
        lr=(0.1 if plain else 0.01) if lr is None else lr,
        tv=tv,
        prior=prior,
    )
    return reconstruct(view, auxiliary, generator, settings, recover=batch_labels, adapt=adapt)


ATTACKS = (
    Attack(
        name="inverting-gradients",
        family="reconstruction",
        infer=inverting_gradients,
        summary="inputs whose gradient points where the client's does, smooth",
        rehearses=True,
    ),
)
