"""The order of one text by an adversary that knows the clients' defense.

fedsim's own. Of one text, the row of a token is the sum of the rows of its positions
(`adversary.text.positions`). A defense blurs both; how much a token's row still has of a position's
is learned from rehearsed clients of one text, and so is which positions are used. The text is the
one that these chances and the model sent make likeliest, by beam search.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from adversary.text.learned import Learned, learned_from
from adversary.text.reading import TOKEN_TABLE, uploaded, vocabulary_of
from adversary.text.rehearsed import Client
from adversary.text.tables import find_tables, table
from adversary.workspace import Workspace, evaluating
from fedsim.core.types import Observation

POSITION_TABLE = "table of positions"
LIKELY, NEAR = 48, 4  # tokens that are tried at every position, and besides at each
BEAM = 16
TREES: dict[str, Any] = {
    "max_iter": 60, "max_leaf_nodes": 8, "early_stopping": False, "random_state": 0,
}  # fmt: skip

Score = Callable[[Tensor], Float[Tensor, " n"]]
"""Features (n, f) → log-odds."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """What an upload shows of tokens and positions.

    Attributes:
        pairs: Features of each token at each position, shape (V, T, f).
        places: Features of each position, shape (T, g).
        tried: Tokens that are tried at each position, shape (T, k).
    """

    pairs: Float[Tensor, "vocabulary length features"]
    places: Float[Tensor, "length facts"]
    tried: Int[Tensor, "length k"]


@dataclass(frozen=True, eq=False)
class Ordering:
    """What rehearsed clients of one text taught.

    Attributes:
        stands: Log-odds that a token stands at a position.
        used: Log-odds that a position is used.
        helps: Whether it reads more tokens of clients it was not fitted on than who does not know
            the defense.
    """

    stands: Score
    used: Score
    helps: bool


def better_order(
    observation: Observation, work: Workspace, static: Callable[[Observation, Workspace], Tensor]
) -> Tensor | None:
    """Return the learned text; None where rehearsed clients prefer the static answer.

    Args:
        observation: The upload of a client of one text.
        work: With the defense and auxiliary texts.
        static: The answer of who does not know the defense: ids.
    """
    if find_tables(work).head is None:  # of a classifier: no model of language to learn with
        return None
    ordering = work.part(_ordering, static)
    if not ordering.helps:
        return None
    return _text(observation, work.part(learned_from, 1), ordering)


def _ordering(work: Workspace, static: Callable[[Observation, Workspace], Tensor]) -> Ordering:
    learned = work.part(learned_from, 1)
    rows = [_rows(it.observation, learned) for it in learned.fitted]
    stands = _fit(
        [_tried(each) for each in rows],
        [_true_pairs(each, it) for each, it in zip(rows, learned.fitted, strict=True)],
    )
    used = _fit([it.places for it in rows], [_used(it, learned) for it in learned.fitted])
    ordering, gain = Ordering(stands, used, helps=True), 0.0
    for client in learned.held_out:
        true = client.inputs[0][_used(client, learned)]
        gain += _right(_text(client.observation, learned, ordering), true)
        try:
            gain -= _right(static(client.observation, learned.asking), true)
        except ValueError:
            continue
    return Ordering(stands, used, helps=gain > 0)


def _right(ids: Tensor, true: Tensor) -> float:
    """Return the share of positions with the right token."""
    count = min(len(ids), len(true))
    return int((ids[:count] == true[:count]).sum()) / max(len(ids), len(true))


def _used(client: Client, learned: Learned) -> Tensor:
    """Return the positions that a client's text uses."""
    return client.inputs[0] != vocabulary_of(learned.asking.auxiliary).pad


def _rows(observation: Observation, learned: Learned) -> _Rows:
    work = learned.asking
    tables, delta = find_tables(work), observation.update.delta
    tokens = uploaded(observation, tables.tokens, TOKEN_TABLE).double()
    length = learned.fitted[0].inputs.shape[1]
    places = table(delta, tables.positions, POSITION_TABLE)[:length].double()
    chance = learned.chance(observation)
    chance[vocabulary_of(work.auxiliary).bos] = 1.0
    sizes = places.norm(dim=1)
    products = tokens @ places.T
    cosines = functional.normalize(tokens, dim=1) @ functional.normalize(places, dim=1).T
    scale = places.square().sum(dim=1).mean().clamp(min=1e-300)
    likely = chance.topk(min(LIKELY, len(chance))).indices
    near = cosines.topk(min(NEAR, len(cosines)), dim=0).indices.T
    relative = (sizes / sizes.mean().clamp(min=1e-300)).expand(len(tokens), -1)
    shown = chance[:, None].expand(-1, length)
    at = torch.arange(length, dtype=torch.float64)
    best = cosines[likely].amax(dim=0)
    return _Rows(
        torch.stack([products / scale, cosines, cosines / best, relative, shown], dim=2),
        torch.stack([relative[0], best, cosines.amax(dim=0), at], dim=1),
        torch.cat([likely.expand(length, -1), near], dim=1),
    )


def _tried(rows: _Rows) -> Float[Tensor, "n features"]:
    at = torch.arange(len(rows.tried))[:, None]
    return rows.pairs[rows.tried, at].flatten(0, 1)


def _true_pairs(rows: _Rows, client: Client) -> Tensor:
    return (rows.tried == client.inputs[0][:, None]).flatten()


def _fit(features: Sequence[Tensor], true: Sequence[Tensor]) -> Score:
    from sklearn.ensemble import HistGradientBoostingClassifier

    labels = torch.cat(list(true))
    if bool(labels.all()) or not bool(labels.any()):
        return lambda values: torch.full((len(values),), 10.0 if labels[0] else -10.0)
    trees = HistGradientBoostingClassifier(**TREES)
    trees.fit(torch.cat(list(features)).numpy(), labels.numpy())
    return lambda values: torch.as_tensor(trees.decision_function(values.numpy()))


def _text(observation: Observation, learned: Learned, ordering: Ordering) -> Int[Tensor, " n"]:
    rows = _rows(observation, learned)
    used = ordering.used(rows.places)
    gains = used.cumsum(0)  # of a text that ends here, against an empty one
    length = int(gains.argmax()) + 1
    scores = functional.logsigmoid(ordering.stands(_tried(rows))).view(rows.tried.shape)
    vocabulary = vocabulary_of(learned.asking.auxiliary)
    with evaluating(learned.asking, learned.asking.sent) as model:
        return _likeliest(model, rows.tried[:length], scores[:length], vocabulary.bos)


def _likeliest(
    model: nn.Module, tried: Int[Tensor, "n k"], scores: Float[Tensor, "n k"], first: int
) -> Int[Tensor, " n"]:
    """Return the text of the best sum of scores and the model's log-probabilities."""
    texts, totals = torch.tensor([[first]]), torch.zeros(1, dtype=torch.float64)
    for choices, score in zip(tried[1:], scores[1:], strict=True):
        with torch.no_grad():
            chances = model(texts)[:, :, -1].double().log_softmax(dim=1)
        tokens, where = choices.unique(return_inverse=True)
        best = torch.full((len(tokens),), -torch.inf, dtype=torch.float64)
        best = best.scatter_reduce(0, where, score, "amax")
        sums = totals[:, None] + chances[:, tokens] + best
        totals, places = sums.flatten().topk(min(BEAM, sums.numel()))
        texts = torch.cat(
            [texts[places // len(tokens)], tokens[places % len(tokens)][:, None]], dim=1
        )
    return texts[0]
