"""What an update says of a language model's tokens, as attacks read it."""

from contextlib import suppress

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from adversary.steps import num_labels, to_sum
from adversary.text.moments import Moments, moments
from adversary.text.row_bayes import Evidence, noise_variance
from adversary.text.rows import Moved, moved
from adversary.text.signs import only_signs, present
from adversary.text.tables import (
    EXACT,
    ReachedError,
    Tables,
    Taken,
    find_tables,
    random_model,
    table,
    traced,
)
from adversary.workspace import Workspace, evaluating
from fedsim.core.boundary import PASSING
from fedsim.core.errors import NotApplicable
from fedsim.core.form import IGNORED
from fedsim.core.types import Auxiliary, Observation
from fedsim.core.vocabulary import Vocabulary

TARGETS = 2048  # auxiliary targets that moments are of, at most
ENTRIES = 1 << 24  # probabilities of them, at most
BATCH = 32  # texts at a time
TOKEN_TABLE, HEAD = "table of tokens", "head of tokens"


def vocabulary_of(auxiliary: Auxiliary) -> Vocabulary:
    """Return the vocabulary.

    Raises:
        NotApplicable: The model takes no tokens.
    """
    if auxiliary.vocabulary is None:
        raise NotApplicable("model: must take tokens, got one of numbers")
    return auxiliary.vocabulary


def moved_rows(observation: Observation, work: Workspace) -> Moved:
    """Return how far each row of the token table moved.

    Raises:
        NotApplicable: There is no such table in the update, or it is the head, too.
    """
    # The result holds the observation, so that no other takes its id.
    compute = lambda: (observation, _moved_rows(observation, work))
    return work.memory.get(moved_rows, (work, id(observation)), compute, keep=1)[1]


def _moved_rows(observation: Observation, work: Workspace) -> Moved:
    tables = find_tables(work)
    if tables.tied:
        raise NotApplicable("model: must have a head of its own: a tied head moves every row")
    delta = uploaded(observation, tables.tokens, TOKEN_TABLE)
    return moved(delta, table(observation.sent, tables.tokens, TOKEN_TABLE))


def uploaded(observation: Observation, name: str | None, what: str) -> Tensor:
    """Return a table of an update.

    Raises:
        NotApplicable: As `table`, or a defense froze it: it has not moved at all.
    """
    values = table(observation.update.delta, name, what)
    if not values[:1].any() and not values.any():
        raise NotApplicable(f"update: must move the {what}, got zeros alone: it was frozen")
    return values


def token_set(observation: Observation, work: Workspace) -> Bool[Tensor, " vocabulary"]:
    """Return the tokens that stand in the client's texts, without special ones.

    By the rows of the token table that moved; where all entries are of one size, by the signs of
    the head's rows.

    Raises:
        NotApplicable: As `moved_rows`, or signs are to be read without auxiliary text.
    """
    tables, delta = find_tables(work), observation.update.delta
    rows = moved_rows(observation, work)
    named = rows.rows
    if only_signs(table(delta, tables.tokens, TOKEN_TABLE)):
        head = table(delta, tables.head, HEAD)
        named = present(head * direction(observation), work.part(target_moments))
    vocabulary = vocabulary_of(work.auxiliary)
    named = named.clone()
    named[list(vocabulary.special)] = False
    return named


def is_blurred(observation: Observation, work: Workspace) -> bool:
    """Return whether noise on all rows of the token table may hide tokens from `token_set`."""
    return moved_rows(observation, work).blurred


def direction(observation: Observation) -> float:
    """Return 1 for a gradient, and −1 for weights, which move against it."""
    return 1.0 if observation.local.upload == "gradient" else -1.0


def evidence(observation: Observation, work: Workspace) -> Evidence:
    """Return what an update says of how often each token is a target.

    Args:
        observation: The update.
        work: Of the model sent.

    Raises:
        NotApplicable: There is no head of tokens in the update.
    """
    tables = find_tables(work)
    if tables.tied:
        raise NotApplicable("model: must have a head of its own, got one tied to the token table")
    delta = uploaded(observation, tables.head, HEAD).to(torch.float64, copy=True)
    try:
        rows = moved_rows(observation, work)
    except NotApplicable:  # the token table is frozen, or not of this client alone
        rows = None
    if rows is not None and rows.shrink:
        delta = delta - rows.shrink * table(observation.sent, tables.head, HEAD).double()
    gradient = delta.mul_(to_sum(observation) / num_labels(observation))
    noise = noise_variance(gradient)
    if rows is None:
        return Evidence(gradient, noise=noise)
    texts = num_labels(observation) // observation.local.epochs
    outside = texts * work.part(expected_outside, rows.blurred)
    return Evidence(gradient, token_set(observation, work), outside, noise, hidden=rows.blurred)


def expected_outside(work: Workspace, hidden: bool) -> Float[Tensor, " vocabulary"]:
    """Return the targets of one text that are not in the set of tokens: expected numbers.

    These are the end of a text, and the last token of a text that was cut.

    Args:
        work: Of the model sent.
        hidden: Whether noise may hide any token from the set.
    """
    vocabulary, (_, targets) = vocabulary_of(work.auxiliary), auxiliary_texts(work.auxiliary)
    last = targets[:, -1]
    cut = float(((last != IGNORED) & (last != vocabulary.eos)).double().mean())
    length = float((targets != IGNORED).sum(dim=1).double().mean())
    outside = (length if hidden else cut) * work.part(target_moments).rates
    outside[[vocabulary.pad, vocabulary.bos]] = 0.0
    outside[vocabulary.eos] = 1 - cut
    return outside


def auxiliary_texts(auxiliary: Auxiliary) -> tuple[Int[Tensor, "n t"], Int[Tensor, "n t"]]:
    """Return auxiliary inputs and targets.

    Raises:
        NotApplicable: There are none.
    """
    if auxiliary.inputs is None or auxiliary.labels is None or not len(auxiliary.inputs):
        raise NotApplicable("auxiliary.inputs: must hold texts for this attack, got none")
    return auxiliary.inputs, auxiliary.labels


def target_moments(work: Workspace) -> Moments:
    """Return the moments of the model sent, from as many auxiliary texts as are needed."""
    tables, state = find_tables(work), work.sent
    weight = table(state, tables.head, HEAD)
    inputs, targets = auxiliary_texts(work.auxiliary)
    most = min(TARGETS, max(2, ENTRIES // len(weight)))
    needed = int(((targets != IGNORED).sum(dim=1).cumsum(0) < most).sum()) + 1
    lengths = _lengths(targets[:needed])
    if not work.lasting(_ends_count_for_nothing):
        lengths = torch.full_like(lengths, targets.shape[1])
    order, features, labels = lengths.argsort(), [], []
    with evaluating(work, state) as model, torch.no_grad():
        for rows in order.split(BATCH):
            most = int(lengths[rows[-1]])
            real = targets[rows, :most] != IGNORED
            features.append(_features(model, inputs[rows, :most], tables)[real])
            labels.append(targets[rows, :most][real])
    bias = None if tables.bias is None else state[tables.bias]
    return moments(torch.cat(features), weight, torch.cat(labels), bias)


def _lengths(targets: Int[Tensor, "n t"]) -> Int[Tensor, " n"]:
    """Return how many positions each text has up to its last target."""
    return (targets != IGNORED).flip(1).cumsum(1).bool().sum(dim=1)


def _ends_count_for_nothing(auxiliary: Auxiliary) -> bool:
    """Return whether the head takes the same of a text without the pads at its end."""
    inputs, targets = auxiliary_texts(auxiliary)
    lengths = _lengths(targets)
    row, length = int(lengths.argmin()), max(1, int(lengths.min()))
    model, tables = random_model(auxiliary).eval(), traced(auxiliary)
    try:
        with torch.no_grad():
            whole = _features(model, inputs[[row]], tables)[:, :length]
            alone = _features(model, inputs[[row], :length], tables)
    except PASSING:
        raise
    except Exception:  # a model of texts of one length
        return False
    return bool((whole - alone).abs().max() <= EXACT * whole.abs().max())


def _features(model: nn.Module, inputs: Tensor, tables: Tables) -> Float[Tensor, "b t width"]:
    """Return the head's input at each position; the model is left there."""
    with suppress(ReachedError), Taken(model.get_parameter(str(tables.head)), tables.uses) as taken:
        model(inputs)
    return taken.features
