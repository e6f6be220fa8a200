"""Token rows: the set of tokens in a client's texts, from the rows of the embedding that moved.

S. Gupta, Y. Huang, Z. Zhong, T. Gao, K. Li, D. Chen, "Recovering private text in federated learning
of language models" (FILM), NeurIPS 2022, section 4.1; decay, noise and signs are fedsim's own.

Idea: the gradient of an embedding's row is zero unless its token is an input. Weight decay shrinks
all other rows by one factor, which is taken out; noise on all rows is told from tokens by the
median of their sizes. Where only signs were uploaded, the head's rows tell targets from the others.
Where noise hides rows, tokens are added that `row-bayes` counts as targets: the head's rows are
longer. That is so where the rows name few of these. Who knows the defense learns from rehearsed
clients which rows are of tokens (`adversary.text.learned`), where that names more of theirs.
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
from adversary.attacks.row_bayes import counted
from adversary.text.learned import better_set
from adversary.text.reading import is_blurred, token_set, vocabulary_of
from adversary.workspace import Workspace, undefended, workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, Observation, View

CLEAR = 0.8  # share of the targets that rows must name to be trusted alone


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
    work = workspace(view, auxiliary)
    if auxiliary.defense is None:
        return _named(view.latest, work).nonzero().squeeze(1)
    better = better_set(view.latest, work, _named)
    if better is None:
        better = _named(view.latest, work.derived(undefended))
    return better.nonzero().squeeze(1)


def _named(latest: Observation, work: Workspace) -> Bool[Tensor, " vocabulary"]:
    """Return the tokens of the texts, for who knows of no defense."""
    named = token_set(latest, work)
    if is_blurred(latest, work):
        with suppress(NotApplicable):  # the head is frozen, or there are no auxiliary texts
            named |= _hidden(named, counted(latest, work) > 0, work.auxiliary)
    return named


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
    reads="rehearsed texts",
    rehearses=True,
    any_optimizer=True,
)
