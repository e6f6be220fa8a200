"""Token rows: the set of tokens in a client's texts, from the rows of the embedding that moved.

S. Gupta, Y. Huang, Z. Zhong, T. Gao, K. Li, D. Chen, "Recovering private text in federated learning
of language models" (FILM), NeurIPS 2022, section 4.1; decay, noise and signs are fedsim's own.

Idea: the gradient of an embedding's row is zero unless its token is an input. Weight decay shrinks
all other rows by one factor, which is taken out; noise on all rows is told from tokens by the
median of their sizes. Where only signs were uploaded, the head's rows tell targets from the others.
Where noise hides rows, tokens are added that `row-bayes` counts as targets: the head's rows are
longer. That is so where the rows name few of these.
*Server must know*: the model, and how special tokens are coded; for signs and noise also auxiliary
text.
*Exact when*: there is no noise, whatever the number of texts and of local steps of SGD, momentum,
FedProx or Adam. Inputs are meant: the last token of a text that was cut is none.
*Differs from the paper*: the paper takes every row that is not zero.
"""

from contextlib import suppress

from jaxtyping import Bool, Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.row_bayes import row_bayes
from adversary.text.reading import is_blurred, token_set, vocabulary_of
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View

CLEAR = 0.8  # share of the targets that rows must name to be trusted alone


def token_rows(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,
) -> Int[Tensor, " named"]:
    """Return the ids of the tokens that stand in a client's texts, in order.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With the vocabulary; the model's current weights mean nothing.
        generator: Not used.

    Raises:
        ValueError: The token table is frozen or tied to the head, or is not finite.
    """
    work = workspace(view, auxiliary)
    named = token_set(view.latest, work)
    if is_blurred(view.latest, work):
        with suppress(NotApplicable):  # the head is frozen, or there are no auxiliary texts
            named |= _hidden(named, row_bayes(view, auxiliary, generator) > 0, auxiliary)
    return named.nonzero().squeeze(1)


def _hidden(
    named: Bool[Tensor, " vocabulary"], targets: Bool[Tensor, " vocabulary"], auxiliary: Auxiliary
) -> Bool[Tensor, " vocabulary"]:
    """Return the targets, if noise hides them from the rows; else none.

    Args:
        named: Tokens whose rows stand out of the noise.
        targets: Those that the head's rows show.
        auxiliary: With the vocabulary.
    """
    targets = targets.clone()
    targets[list(vocabulary_of(auxiliary).special)] = False
    few = int((named & targets).sum()) < CLEAR * int(targets.sum())
    return targets & few


ATTACK = Attack(
    name="token-rows",
    family="tokens",
    infer=token_rows,
    needs=("vocabulary",),
    summary="the set of tokens, from the rows of the embedding that moved",
    has_twin=False,
    any_optimizer=True,
)
