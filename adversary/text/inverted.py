"""A batch of texts from one update, with what its certificate lacks."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adversary.text.continued import Batch, continued
from adversary.text.dager import Tree, candidates, fitting
from adversary.text.dictionary import Dictionary
from adversary.text.encoded import Encoder, encoded
from adversary.text.layers import Layers, layers_of
from adversary.text.pursued import candidates as tokens_of
from adversary.text.pursued import words_of
from adversary.text.replayed import likeness, next_tokens, padded
from adversary.text.sites import Site, inputs_at, sites_of
from adversary.text.spans import Span, bipartite_rank, residuals, span_of, widest_gap
from adversary.text.tables import Tables, find_tables
from adversary.workspace import Workspace, evaluating
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Observation, Params

LOOSEST = 1e-2  # residual of a pair that can be taken for one in the first span
ROUNDING = 1e-8  # of a residual: gaps below it are none
SLACK = 1  # LayerNorm's bias, where it is not 0, is one more direction than the pairs have
LAYERS = 3  # later ones whose spans are searched, those with the widest falls
ALIKE = 1e-6  # 1 − cosine of two gradients of the same batch


@dataclass(frozen=True)
class Inverted:
    """An answer.

    Attributes:
        texts: Token ids, distinct.
        missing: What the certificate lacks; empty if the answer is certified.
    """

    texts: Sequence[tuple[int, ...]]
    missing: str = ""


@dataclass(frozen=True, eq=False)
class _Case:
    """One update under attack."""

    observation: Observation
    work: Workspace
    layers: Layers
    tables: Tables
    tokens: Int[Tensor, " tokens"]

    @property
    def update(self) -> Params:
        return self.observation.update.delta


def inverted(observation: Observation, work: Workspace) -> Inverted:
    """Return the texts of an update, and whether they are certified.

    Raises:
        NotApplicable: The model has no such layers, or trains only adapters of low rank there.
    """
    site = spanned(observation, work)
    tables, layers = find_tables(work), work.part(layers_of)
    case = _Case(observation, work, layers, tables, tokens_of(observation, work, tables))
    rows = site.rows(observation.update.delta)
    words = work.part(words_of, site, tuple(case.tokens.tolist()), keep=2)
    span = span_of(rows)
    rank, _ = widest_gap(span)
    if not rank:
        return Inverted([], "the update shows no direction of the first layer")
    choices = _choices(words, span.cut(rank), case)
    with evaluating(work, work.sent) as model:
        if layers.causal:
            return _decoded(model, case, choices)
        return _encoded(model, case, words, span.cut(rank), choices)


def spanned(observation: Observation, work: Workspace) -> Site:
    """Return the first maps of an update, whose rows can show every direction of their input.

    Raises:
        NotApplicable: As `inverted`.
    """
    site = work.part(layers_of).first_in(observation.update.delta)
    rows = site.rows(observation.update.delta)
    if len(rows) < site.width - 1:  # adapters: their span is cut off at their rank
        raise NotApplicable(
            f"model: must train first maps with at least {site.width - 1} rows together to show "
            f"every direction of their input, got {len(rows)}: adapters, which span-pursuit reads"
        )
    return site


def _choices(words: Dictionary, span: Span, case: _Case) -> list[Int[Tensor, " _"]]:
    """Return the tokens of each position: pairs in the span, up to the widest gap of residuals.

    Below it, the rank of the pairs in closed form is that of the span, and each token that moved
    stands somewhere. Where no pairs fit like that, every token may stand everywhere.
    """
    rest = residuals(words.vectors, span.basis)
    saturated = len(span.basis) >= words.vectors.shape[-1] - 1

    def fits(tolerance: float) -> bool:
        inside = rest <= tolerance
        pairs = [(token, place) for token, place in inside.nonzero().tolist()]
        rank = bipartite_rank(pairs) if words.positions > 1 else len(pairs)
        whole = len(case.tokens) == int(inside.any(dim=1).sum()) or not _exact_rows(case)
        return rank >= len(span.basis) - SLACK and whole

    tolerance = None if saturated else _widest(rest, fits)
    if tolerance is None:
        return [case.tokens] * case.layers.length
    return candidates(words, span.basis, tolerance, case.layers.length)


def _widest(rest: Float[Tensor, "tokens positions"], fits: Callable[[float], bool]) -> float | None:
    """Return the residual below the widest gap, of those that fit; None if none does.

    Pairs in the span differ in their residuals by what rounding makes of them; those outside are
    orders of magnitude away. A tolerance at the first that fits would cut through the former.

    Args:
        rest: Residuals of all pairs.
        fits: Whether the pairs up to a residual do; if so, those up to larger ones do too.
    """
    values = rest.flatten().sort().values
    near = values[values <= LOOSEST].tolist()
    least = bisect_left(near, True, key=fits)
    if least == len(near):
        return None
    after = torch.cat([values, values.new_ones(1)])[least + 1 : len(near) + 1]
    gaps = after / values[least : len(near)].clamp_min(ROUNDING)
    return near[least + int(gaps.argmax())]


def _exact_rows(case: _Case) -> bool:
    return not case.tables.tied and case.tables.tokens in case.update


def _decoded(model: nn.Module, case: _Case, choices: Sequence[Tensor]) -> Inverted:
    best = Inverted([], "no layer's span holds texts")
    spans = [
        (it, span_of(it.rows(case.update))) for it in case.layers.causal if it.within(case.update)
    ]
    spans = sorted(spans, key=lambda pair: -widest_gap(pair[1])[1])[:LAYERS]
    for site, span in spans:
        basis = span.cut(widest_gap(span)[0]).basis
        if len(basis) >= min(site.width - 1, *site.rows(case.update).shape):
            continue  # every vector lies in it
        tree = fitting(lambda ids, at=site: inputs_at(model, at, ids)[:, -1], choices, basis)
        if tree is None:
            continue
        answer = _certified(model, case, tree, len(basis))
        if not answer.missing:
            return answer
        best = max(best, answer, key=lambda it: len(it.texts))
    return best


def _certified(model: nn.Module, case: _Case, tree: Tree, rank: int) -> Inverted:
    texts = list(tree.texts)
    if len(tree.prefixes) != rank:
        return Inverted(texts, f"{len(tree.prefixes)} prefixes for {rank} directions")
    batch = _batch(model, case, tree)
    texts = list(dict.fromkeys(batch.texts)) or texts
    used = {token for text in texts for token in text}
    if _exact_rows(case) and used != set(case.tokens.tolist()):
        return Inverted(texts, "texts do not use every row of the token table that moved")
    if not batch.whole or not _same_gradient(model, case, batch):
        return Inverted(texts, "the gradient of these texts is not the update")
    return Inverted(texts)


def _batch(model: nn.Module, case: _Case, tree: Tree) -> Batch:
    """Return the batch, from the head's gradient where it is there and not the token table too."""
    head, assumed = case.tables.head, case.work.auxiliary.vocabulary
    assert assumed is not None
    site = _site_of(model, head, case) if head in case.update and not case.tables.tied else None
    if site is None or head is None:
        return Batch(tree.texts, [assumed.eos] * len(tree.texts), whole=True)
    ids, lengths = padded(tree.prefixes, assumed.pad)
    rows = torch.arange(len(ids))
    with torch.no_grad():
        chances = model(ids).double().softmax(dim=1)[rows, :, lengths - 1]
    features = inputs_at(model, site, ids)[rows, lengths - 1]
    return continued(tree.prefixes, case.update[head], features, chances)


def _site_of(model: nn.Module, name: str | None, case: _Case) -> Site | None:
    sites = sites_of(model, case.tokens[None, : case.layers.length])
    return next((it for it in sites if any(w.name == name for w in it.weights)), None)


def _same_gradient(model: nn.Module, case: _Case, batch: Batch) -> bool:
    """Return whether the batch's gradient at the weights sent points where the update points."""
    assert case.work.auxiliary.vocabulary is not None
    ids, lengths = padded(batch.texts, case.work.auxiliary.vocabulary.pad)
    targets = next_tokens(ids, lengths, batch.last)
    return likeness(model, case.observation, ids, targets) > 1 - ALIKE


def _encoded(
    model: nn.Module, case: _Case, words: Dictionary, span: Span, choices: Sequence[Tensor]
) -> Inverted:
    """Return an encoder's texts: one is certified if its gradient is the update.

    Of several the gradient hardly changes with their order, which a cosine does not certify.
    """
    auxiliary = case.work.auxiliary
    assert auxiliary.vocabulary is not None
    if words.positions == 1:
        return Inverted([tuple(case.tokens.tolist())], "an encoder without positions has no order")
    encoder = Encoder(model, case.observation, auxiliary.num_classes, auxiliary.vocabulary.pad)
    rest = residuals(words.vectors, span.basis)
    texts, cosine = encoded(encoder, words, rest, choices)
    if case.observation.update.num_examples != 1:
        return Inverted(texts, "an encoder's several texts share their positions")
    if texts and cosine > 1 - ALIKE:
        return Inverted(texts)
    return Inverted(texts, "the gradient of this text is not the update")
