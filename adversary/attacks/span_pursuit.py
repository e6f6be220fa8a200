"""Span pursuit: the tokens and positions whose first-layer vectors explain an update.

fedsim's own. The span is that of I. Petrov et al., "DAGER: exact gradient inversion for large
language models", NeurIPS 2024; the pursuit is Algorithm 3 of M. E. Davies, Y. C. Eldar, "Rank
awareness in joint sparse recovery", IEEE Transactions on Information Theory 2012.

Idea: the gradients of linear maps that share the first layer's input have their rows in the span of
its vectors LN(E_v + P_i). Under LoRA these vectors never move, and so the row space of an adapter's
A lies in the span of the client's own vectors, over any number of local steps of SGD, and that of
several rounds adds up. Where the span has fewer dimensions than there are tokens, it is compressed
sensing: greedy pursuit in the dictionary of all (token, position) pairs finds them.

*Server must know*: the weights sent, the frozen ones included, and the update. Auxiliary texts make
frequent tokens likelier. The number of texts bounds the tokens of a position where it is known.
*Exact when*: the rank measured is large enough for the number of tokens; Adam scales entries one by
one, and ends it.
*Differs from the paper*: rows are in units of their own noise (float32 rounding of weights and
gradients; a defense's noise, known or measured at the head). Pursuit stops where the picks leave no
more than noise, and takes back picks that are not needed. A pick's score is weighed against what a
direction at random reaches. Texts come from positions, of several texts by the likelihood of the
model sent.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, tensor

from adversary.attack import Attack
from adversary.over_rounds import summed
from adversary.text.assembly import one_text, refined, several_texts
from adversary.text.layers import layers_of
from adversary.text.pursued import Pursued, check_one_client, is_frozen, measured, pursued
from adversary.text.replayed import likeness, next_tokens, padded
from adversary.text.tables import find_tables
from adversary.workspace import Workspace, evaluating, workspace
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.form import IGNORED
from fedsim.core.types import Auxiliary, Observation, View


def span_pursuit(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> list[Tensor]:
    """Return texts, as token ids, the longest first.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With the vocabulary; auxiliary texts help.
        generator: Not used: the answer is deterministic.

    Raises:
        NotApplicable: The model has no such layer, or the update is a sum over clients.
    """
    work = workspace(view, auxiliary)
    check_one_client(view.latest)
    return _answer(view.latest, measured(view.latest, work), work, rounds=1)


def span_pursuit_rounds(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> list[Tensor]:
    """Return texts, from the spans of all rounds together.

    Args:
        view: One client's observations, all of which are used.
        auxiliary: As for `span_pursuit`.
        generator: Not used.

    Raises:
        NotApplicable: As `span_pursuit`, or the token table trains: the spans of rounds differ.
    """
    work = workspace(view, auxiliary)
    if not is_frozen(view.latest, find_tables(work)):
        raise NotApplicable(
            "model: must have a frozen token table to add spans over rounds, got one that trains"
        )
    check_one_client(view.latest)
    (rows,), rounds = summed(
        view,
        lambda single: (measured(single.latest, workspace(single, auxiliary)),),
        (span_pursuit_rounds, auxiliary),
        same=True,
        plus=lambda above, below: torch.cat([above, below]),
    )
    return _answer(view.latest, rows, work, rounds)


def _answer(latest: Observation, rows: Tensor, work: Workspace, rounds: int) -> list[Tensor]:
    texts = latest.update.num_examples
    if texts is not None and latest.local.upload == "gradient":
        texts = min(texts, latest.local.batch_size) * rounds
    picked = pursued(latest, rows, work, texts=texts)
    _remark(picked)
    return [tensor(text) for text in _texts(picked, work, latest, texts) if text]


def _texts(
    picked: Pursued, work: Workspace, latest: Observation, texts: int | None
) -> list[tuple[int, ...]]:
    length, vocabulary = work.part(layers_of).length, work.auxiliary.vocabulary
    choices = picked.choices(length)
    if not picked.placed:  # tokens without an order
        return [tuple(choices[0])]
    count = max((len(tokens) for tokens in choices), default=0)
    if count <= 1 or texts == 1:
        return [one_text(choices)]
    assert vocabulary is not None
    if not work.auxiliary.per_token:
        return [one_text([tokens[k : k + 1] for tokens in choices]) for k in range(count)]
    with evaluating(work, work.sent) as model:
        likely = several_texts(model, choices, texts or count, vocabulary.eos)

        def score(texts: Sequence[tuple[int, ...]]) -> float:
            ids, lengths = padded(texts, vocabulary.pad)
            ends = [IGNORED if len(text) == length else vocabulary.eos for text in texts]
            return likeness(model, latest, ids, next_tokens(ids, lengths, ends))

        return refined(likely, score)


def _remark(picked: Pursued) -> None:
    if not picked.rank:
        reason = "the update shows no direction of the first layer above rounding"
    elif not picked.explained:
        reason = f"{len(picked.pairs)} tokens leave more than noise of {picked.rank} directions"
    else:
        return
    warnings.warn(f"not certified: {reason}", Remark, stacklevel=3)


ATTACKS = (
    Attack(
        name="span-pursuit",
        family="text",
        on_device=True,
        infer=span_pursuit,
        summary="texts whose first-layer vectors explain the rows of an update, by pursuit",
        kinds=("tokens", "language"),
    ),
    Attack(
        name="span-pursuit-rounds",
        family="text",
        on_device=True,
        infer=span_pursuit_rounds,
        summary="span-pursuit in what all of a client's rounds show together, under LoRA",
        over_rounds=True,
        kinds=("tokens", "language"),
    ),
)
