"""Tokens moved: a text whose tokens' rows did not move was not trained on.

fedsim's own, after FILM's token set: S. Gupta et al., "Recovering private text in federated
learning of language models", NeurIPS 2022 (arXiv 2205.08514).

Idea: the row of a token in the embedding moves if and only if a client used the token. All tokens
of a client's text are among the rows that moved; of other texts, some are not.

*Server must know*: the weights sent, the update of the token table, and the candidate texts.
*Exact when*: every other text has a token that the client did not use.
*Differs from the paper*: the set is used to tell texts apart, not to write them.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.text.reading import moved_rows
from adversary.workspace import workspace
from fedsim.core.types import Auxiliary, View


def tokens_moved(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Float[Tensor, " m"]:
    """Return the share of each candidate's distinct tokens whose rows moved, in [0, 1].

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With the vocabulary and candidates.
        generator: Not used: the answer is deterministic.

    Raises:
        NotApplicable: The token table is frozen, or is the head too: then every row moves.
    """
    candidates, vocabulary = auxiliary.candidates, auxiliary.vocabulary
    assert candidates is not None
    rows = moved_rows(view.latest, workspace(view, auxiliary)).rows
    held = torch.zeros(len(candidates.inputs), len(rows), dtype=torch.bool)
    held.scatter_(1, candidates.inputs.long(), value=True)
    if vocabulary is not None:
        held[:, list(vocabulary.special)] = False
    return (held & rows).sum(dim=1).double() / held.sum(dim=1).clamp_min(1)


ATTACK = Attack(
    name="tokens-moved",
    family="membership",
    on_device=True,
    infer=tokens_moved,
    needs=("candidates",),
    summary="share of each candidate text's tokens whose embeddings moved",
    kinds=("tokens", "language"),
    any_optimizer=True,
)
