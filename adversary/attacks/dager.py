"""DAGER: exact texts from a gradient, whose rows span what layers take.

I. Petrov, D. I. Dimitrov, M. Baader, M. N. Müller, M. Vechev, "DAGER: exact gradient inversion for
large language models", NeurIPS 2024 (arXiv 2405.15586), Algorithms 1 to 3.

Idea: the gradient of a linear map has its rows in the span of the vectors that the map takes. Of
the first layer these depend on a token and its position alone: whatever lies outside of the span
did not stand there. Of a later layer they depend on the text up to there: prefixes are grown token
by token, as long as they lie in that span.

*Server must know*: the weights sent, and the gradient of one batch.
*Exact when*: a decoder's distinct prefixes are fewer than the width less one. LayerNorm's outputs
lie in a hyperplane. Of an encoder, one text. Adapters of low rank are refused:
`span-pursuit` reads them.
*Differs from the paper*: no tolerance is set by hand. Ranks are where singular values fall most,
and the tolerance is the one at which the prefixes are as many as the span has dimensions; of the
first layer, one at which the rank of the pairs in closed form is that of the span. The later layer
is the one with the widest fall, which is the first perceptron's input more often than the second
attention's. An answer is certified if the rank of the later layer is the number of prefixes, all
rows of the token table that moved are used, and the gradient of the recovered batch is the upload;
a remark says so otherwise. How often each text occurs, and what follows a text that was cut, is
read off the head's gradient. Of an encoder with two texts, tokens change between them as long as
that turns their gradient towards the update; with more, the answer is one token of each position.
"""

import warnings

from torch import Generator, Tensor, tensor

from adversary.attack import Attack
from adversary.inversion.chain import drops_out
from adversary.text.inverted import Inverted, inverted
from adversary.text.pursued import check_one_client
from adversary.workspace import workspace
from fedsim.core.errors import Remark
from fedsim.core.params import not_finite
from fedsim.core.types import Auxiliary, View


def dager(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> list[Tensor]:
    """Return texts, as token ids, the longest first.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With the vocabulary.
        generator: Not used: the answer is deterministic.

    Raises:
        NotApplicable: The model has no such layers, or trains only adapters of low rank there; the
            update is a sum over clients.
        ValueError: The update is not finite.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    check_one_client(latest)
    if reason := not_finite(latest.update.delta):
        raise ValueError(f"update: {reason}")
    answer = inverted(latest, work)
    if answer.missing:
        warnings.warn(_sentence(answer, auxiliary), Remark, stacklevel=2)
    return [tensor(text) for text in sorted(answer.texts, key=len, reverse=True)]


def _sentence(answer: Inverted, auxiliary: Auxiliary) -> str:
    drops = [name for name, it in auxiliary.model.named_modules() if drops_out(it)]
    hint = f"; dropout in training ({drops[0]}) changes what layers take" if drops else ""
    return f"not certified: {answer.missing}{hint}"


ATTACKS = (
    Attack(
        name="dager",
        family="text",
        on_device=True,
        infer=dager,
        summary="exact texts from a gradient, prefix by prefix in the spans of its layers",
        reads="spans",
        kinds=("tokens", "language"),
    ),
)
