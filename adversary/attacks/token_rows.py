"""Token rows: the set of tokens in a client's texts, from the rows of the embedding that moved.

S. Gupta, Y. Huang, Z. Zhong, T. Gao, K. Li, D. Chen, "Recovering private text in federated learning
of language models" (FILM), NeurIPS 2022, section 4.1; decay, noise and signs are fedsim's own.

Idea: the gradient of an embedding's row is zero unless its token is an input. Weight decay shrinks
all other rows by one factor, which is taken out; noise on all rows is told from tokens by the
median of their sizes. Where only signs were uploaded, the head's rows tell targets from the others.
*Server must know*: the model, and how special tokens are coded; for signs also auxiliary text.
*Exact when*: there is no noise, whatever the number of texts and of local steps of SGD, momentum,
FedProx or Adam. Inputs are meant: the last token of a text that was cut is none.
*Differs from the paper*: the paper takes every row that is not zero.
"""

from jaxtyping import Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.text.reading import token_set
from adversary.workspace import workspace
from fedsim.core.types import Auxiliary, View


def token_rows(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Int[Tensor, " named"]:
    """Return the ids of the tokens that stand in a client's texts, in order.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With the vocabulary; the model's current weights mean nothing.
        generator: Not used.

    Raises:
        ValueError: The token table is frozen or tied to the head, or is not finite.
    """
    named = token_set(view.latest, workspace(view, auxiliary))
    return named.nonzero().squeeze(1)


ATTACK = Attack(
    name="token-rows",
    family="tokens",
    infer=token_rows,
    needs=("vocabulary",),
    summary="the set of tokens, from the rows of the embedding that moved",
    has_twin=False,
)
