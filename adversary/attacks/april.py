"""APRIL: the picture of a vision transformer's client, from its position embedding's gradient.

J. Lu, X. S. Zhang, T. Zhao, X. He, J. Cheng, "APRIL: Finding the Achilles' heel on privacy for
vision transformers", CVPR 2022 (arXiv 2112.14087), proposition 1.

Idea: positions are added to the tokens, so that the position embedding's gradient is dL/dz of one
example. The gradient of the patch embedding is then linear in the patches, and nothing else in it
is unknown. Where the patch embedding does not train, the same holds of an attention that takes the
tokens by themselves.

*Server must know*: the update, and that it is of one example.
*Exact when*: dL/dz has as many independent rows as there are patches: no fewer features than
patches. Any number of local steps on the one example will do, as the steps add up alike in both.
*Differs from the paper*: its closed form needs an attention without a norm or a residual before it
(here: if the patch embedding is frozen). The patch embedding's own gradient, which is taken first,
needs neither, so that any vision transformer whose positions and patches train is open.
"""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.inversion.applicable import check_inputs
from adversary.inversion.patches import Embedding, embedding_of, solved
from adversary.inversion.precision import rounding
from adversary.inversion.reading import batch_size, mean_gradient, weights
from adversary.labels.head import input_shape
from adversary.members.candidates import trained_names
from adversary.steps import mean_weight, num_steps
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, Observation, View

ROUNDED = 2.0  # times the unit of its type is the relative error of a computed gradient


def april(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, "1 *shape"]:
    """Return the picture of one example.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: There are several examples, no trained position embedding, patches that overlap,
            or no gradient reaches the positions.
    """
    check_inputs(view, auxiliary)
    latest, shape = view.latest, input_shape(auxiliary)
    if (count := batch_size(latest)) != 1:
        raise NotApplicable(
            f"num_examples: must be 1, whose positions alone have this gradient, got {count}"
        )
    embedding = workspace(view, auxiliary).lasting(_embedding)
    gradient = mean_gradient(latest, auxiliary)
    slopes = embedding.rows(gradient[embedding.positions])
    if not bool(slopes.any()):
        raise ValueError(
            f"update: a gradient must reach {embedding.positions}, got zero, as of a head of zeros"
        )
    here = slice(embedding.first, embedding.first + len(embedding.pixels))
    if embedding.weight in gradient:
        right = gradient[embedding.weight].flatten(1)
        patches = solved(slopes[here], right, _error(latest, embedding, gradient))
    else:
        patches = _through_attention(latest, auxiliary, embedding, gradient)[here]
    return embedding.picture(patches, shape).float()


def _embedding(auxiliary: Auxiliary) -> Embedding:
    embedding = embedding_of(auxiliary.model, input_shape(auxiliary))
    if embedding.weight not in trained_names(auxiliary) and not embedding.readers:
        raise NotApplicable(
            f"patches: {embedding.layer} must be trained, or an attention must take the tokens by "
            "themselves, got neither"
        )
    return embedding


def _through_attention(
    latest: Observation, auxiliary: Auxiliary, embedding: Embedding, gradient: dict[str, Tensor]
) -> Tensor:
    """Return patches from zᵀΔ = Σ dWᵀW, of a patch embedding that is frozen."""
    sent, unit = weights(latest, auxiliary), _unit(latest, embedding)
    slopes = embedding.rows(gradient[embedding.positions])
    right = sum(gradient[name].T @ sent[name] for name in embedding.readers)
    assert isinstance(right, Tensor)
    positions = embedding.rows(sent[embedding.positions])
    tokens = positions + solved(
        slopes, right.T - slopes.T @ positions, unit * float(right.abs().max()), centre=0.0
    )
    weight = latest.sent[embedding.weight].double().flatten(1)
    bias = latest.sent.get(f"{embedding.layer}.bias")
    apart = tokens - positions - (0 if bias is None else bias.double())
    return solved(weight.T, apart.T, unit * float(apart.abs().max())).T


def _error(latest: Observation, embedding: Embedding, gradient: dict[str, Tensor]) -> float:
    """Return the standard deviation of ΔᵀX − dW, from the rounding of both."""
    names, local = (embedding.weight, embedding.positions), latest.local
    unit = _unit(latest, embedding)
    direct, through = (unit * float(gradient[n].square().mean().sqrt()) for n in names)
    if local.upload == "weights":
        steps = num_steps(latest)
        lr = local.lr * mean_weight(local, steps) * steps
        rounded = (rounding(latest.sent[name], lr) for name in names)
        direct, through = (
            math.hypot(a, b) for a, b in zip((direct, through), rounded, strict=True)
        )
    return math.hypot(direct, through * math.sqrt(len(embedding.pixels)) / 2)


def _unit(latest: Observation, embedding: Embedding) -> float:
    return ROUNDED * torch.finfo(latest.update.delta[embedding.positions].dtype).eps


ATTACKS = (
    Attack(
        name="april",
        family="reconstruction",
        on_device=True,
        infer=april,
        summary="one picture of a vision transformer, from its position embedding's gradient",
        has_twin=False,
    ),
)
