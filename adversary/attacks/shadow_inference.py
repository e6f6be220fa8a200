"""Shadow inference: a predictor learned from rehearsed uploads whose secret is known.

Li et al., "Analyzing Inference Privacy Risks Through Gradients in Machine Learning", CCS 2024, of
properties (after Melis et al., S&P 2019), distributions and users; inside a federation.

Idea: rehearse many uploads at the weights sent, from auxiliary examples drawn under each secret;
learn to tell the secrets; ask the client's upload.

*Server must know*: the weights sent, the protocol, the number of examples, auxiliary examples of
which it knows the property, and its definition.
*Exact when*: rehearsed clients are like real ones and the predictor is the true posterior.
*Differs from the paper*: its code is not at hand. A client's examples other than for their property
are drawn like the auxiliary ones, as a forest and a linear discriminant are to see them; a client
whose labels are spread otherwise is not like that. Sizes are rounded, so that clients of about the
same size share a predictor. For the property, shadow clients have exactly as many examples with it
as the question asks, or none.
"""

from dataclasses import replace
from functools import partial

from jaxtyping import Float
from torch import Generator, Tensor

from adversary.games.evidence import Evidence
from adversary.games.learner import Learner
from adversary.games.play import learn
from adversary.games.predictors import Predictor
from adversary.games.samplers import GAMES, Pool
from adversary.memo import once
from adversary.rehearsal import rehearsed_size
from adversary.secrets import prior
from fedsim.params import not_finite
from fedsim.types import Auxiliary, LocalTraining, Params, View

SHADOWS = {"gradient": 600, "weights": 160}  # rehearsed uploads


def shadow_inference(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    family: str,
) -> Float[Tensor, " classes"]:
    """Return log p(secret | upload), in nats, with the prior of the blind guess.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs, labels, marks and rules; where it has the defense, shadow uploads
            pass through it too.
        generator: Not used: rehearsals are the same for all clients.
        family: `property`, `distribution` or `user`.

    Raises:
        ValueError: The update is not finite, the client told no number of examples, or there are
            no auxiliary examples with and without the property.
    """
    latest = view.latest
    if reason := not_finite(latest.update.delta):
        raise ValueError(f"update: {reason}")
    size = rehearsed_size(latest)
    size = max(size, auxiliary.rules.count if family == "property" else 1)
    learner, predictor = fitted(
        auxiliary, latest.sent, family=family, local=latest.local, size=size
    )
    asked = Evidence(learner.flat(latest.update.delta)[None], size, learner.weight(size))
    found = predictor.log_probabilities(asked)[0] + prior(family, view, auxiliary)
    return found.log_softmax(dim=0)


@once(size=32)
def fitted(
    auxiliary: Auxiliary, sent: Params, *, family: str, local: LocalTraining, size: int
) -> tuple[Learner, Predictor]:
    """Return a predictor learned at the weights sent, once for all clients of this size."""
    assert auxiliary.inputs is not None
    assert auxiliary.labels is not None
    assert auxiliary.marks is not None
    pool = Pool(auxiliary.inputs, auxiliary.labels, auxiliary.marks[family])
    learner, rules = Learner(auxiliary, local), replace(auxiliary.rules, batch=size)
    told = learn(GAMES[family], rules, pool, learner, sent, shadows=SHADOWS[local.upload])
    return learner, told["adaptive" if "adaptive" in told else "static"]


property_inference = partial(shadow_inference, family="property")
distribution_inference = partial(shadow_inference, family="distribution")
user_inference = partial(shadow_inference, family="user")
