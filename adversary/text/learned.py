"""Token counts by an adversary that knows the clients' defense: learned from clients it rehearses.

fedsim's own. Nothing here knows any particular defense. Clients with auxiliary texts are rehearsed
and defended; boosted trees learn from each token's rows how often it is a target. What a row shows:
its size; how much more it looks like rows of used tokens than of others, by the two covariances
(noise has one, signs of zeros another); its share of the targets by the moments of the model sent.
Half of the auxiliary texts give the moments, of the real upload too, and the others the rehearsed
clients: texts in their own moments would look too clear.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from adversary.labels.counts import round_counts
from adversary.rehearsal import rehearsed_size
from adversary.text.reading import (
    HEAD,
    TOKEN_TABLE,
    auxiliary_texts,
    direction,
    target_moments,
    uploaded,
    vocabulary_of,
)
from adversary.text.rehearsed import Client, clients_of
from adversary.text.row_bayes import Evidence, shares
from adversary.text.tables import find_tables
from adversary.workspace import Workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, Observation

RIDGE = 1e-3  # of the mean variance of a used row's entries
TREES: dict[str, Any] = {
    "loss": "poisson", "max_iter": 80, "max_leaf_nodes": 8, "learning_rate": 0.1,
    "min_samples_leaf": 20, "early_stopping": False, "random_state": 0,
}  # fmt: skip

Answer = Callable[[Observation, Workspace], Tensor]
"""(observation, workspace of an adversary without the defense) → counts of tokens, or a mask."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What rehearsed clients taught.

    Attributes:
        expected: Observation → how often each token is expected among the targets.
        chance: Observation → how likely each token is in the texts, up to calibration.
        threshold: Of this, from which on a token is named.
        fitted: Clients that it was fitted on.
        held_out: Others.
        asking: Workspace with the moments that go with it, without the defense.
    """

    expected: Callable[[Observation], Float[Tensor, " vocabulary"]]
    chance: Callable[[Observation], Float[Tensor, " vocabulary"]]
    threshold: float
    fitted: Sequence[Client]
    held_out: Sequence[Client]
    asking: Workspace

    def named(self, observation: Observation) -> Bool[Tensor, " vocabulary"]:
        """Return the tokens of an upload's texts, without special ones."""
        named = self.chance(observation) > self.threshold
        named[list(vocabulary_of(self.asking.auxiliary).special)] = False
        return named

    def counts(self, observation: Observation) -> Int[Tensor, " vocabulary"]:
        """Return how often each token is a target."""
        expected = self.expected(observation)
        return round_counts(expected, max(1, round(float(expected.sum()))))


def better_set(observation: Observation, work: Workspace, static: Answer) -> Tensor | None:
    """Return the learned set of tokens; None where rehearsed clients prefer the static answer.

    None, too, of a classifier: moments are those of targets.

    Args:
        observation: The upload.
        work: With the defense and auxiliary texts.
        static: The answer of who does not know the defense, as a mask.
    """
    if find_tables(work).head is None:
        return None
    learned = work.part(learned_from, rehearsed_size(observation))
    return _better(learned, observation, static, _set_f1, Learned.named)


def better_counts(observation: Observation, work: Workspace, static: Answer) -> Tensor | None:
    """Return the learned counts of one epoch's targets; None where the static answer is better.

    Rehearsed clients decide.

    Args:
        observation: The upload.
        work: With the defense and auxiliary texts.
        static: The counts of who does not know the defense, over all local epochs.
    """
    learned = work.part(learned_from, rehearsed_size(observation))
    once = lambda observation, asking: static(observation, asking) // observation.local.epochs
    return _better(learned, observation, once, _overlap, Learned.counts)


def _better(
    learned: Learned,
    observation: Observation,
    static: Answer,
    quality: Callable[[Tensor, Client], float],
    answer: Callable[[Learned, Observation], Tensor],
) -> Tensor | None:
    def prefers(work: Workspace) -> bool:  # computed once for all clients of the round
        gain = 0.0
        for client in learned.held_out:
            try:
                plain = quality(static(client.observation, work), client)
            except ValueError:
                plain = 0.0
            gain += quality(answer(learned, client.observation), client) - plain
        return gain > 0

    kept = learned.asking.memory.get(
        (_better, answer), (learned,), lambda: prefers(learned.asking), keep=8
    )
    return answer(learned, observation) if kept else None


def _set_f1(named: Tensor, client: Client) -> float:
    true = client.used
    return 2 * int((named & true).sum()) / max(1, int(named.sum()) + int(true.sum()))


def _overlap(guess: Tensor, client: Client) -> float:
    return float(torch.minimum(guess, client.counts).sum() / client.counts.sum())


def _even(auxiliary: Auxiliary) -> Auxiliary:
    """Return an adversary without the defense, with every second auxiliary text."""
    inputs, targets = auxiliary_texts(auxiliary)
    return replace(auxiliary, defense=None, inputs=inputs[::2], labels=targets[::2])


def learned_from(work: Workspace, size: int) -> Learned:
    """Rehearse clients of so many texts, and learn from half of them.

    Raises:
        NotApplicable: There are too few auxiliary texts, or neither table is in an upload.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    asking, clients = work.derived(_even), clients_of(work, size)
    fitted, held_out = clients[::2], clients[1::2]
    looks = tuple(_discriminant(rows, fitted, asking) for rows in (_embedding, _turned))
    shown = torch.cat([_features(it.observation, asking, looks) for it in fitted])
    columns = ~shown.isnan().all(dim=0)  # a frozen table shows nothing, and trees refuse that
    if int(columns.sum()) == 1:  # the rates alone
        raise NotApplicable("update: must move a table of tokens, got none that moves")
    features = lambda observation: _features(observation, asking, looks)[:, columns].numpy()

    def fit(values: Sequence[Tensor]) -> Callable[[Observation], Tensor]:
        trees = HistGradientBoostingRegressor(**TREES)
        trees.fit(shown[:, columns].numpy(), torch.cat(list(values)).numpy())
        return lambda observation: torch.as_tensor(trees.predict(features(observation)))

    expected = fit([it.counts for it in fitted])
    chance = fit([it.used.double() for it in fitted])
    # As many as clients have: a longer list would look better without an update, too.
    answers = torch.stack([chance(it.observation) for it in held_out])
    answers[:, list(vocabulary_of(work.auxiliary).special)] = 0.0
    count = sum(int(it.used.sum()) for it in held_out)
    threshold = float(answers.flatten().sort(descending=True).values[count])
    return Learned(expected, chance, threshold, fitted, held_out, asking)


def _embedding(observation: Observation, work: Workspace) -> Tensor:
    """Return the rows of the token table, pointing uphill."""
    rows = uploaded(observation, find_tables(work).tokens, TOKEN_TABLE)
    return direction(observation) * rows.double()


def _turned(observation: Observation, work: Workspace) -> Tensor:
    """Return the rows of the head at length 1: only those of targets point another way."""
    rows = uploaded(observation, find_tables(work).head, HEAD)
    return functional.normalize(direction(observation) * rows.double(), dim=1)


def _discriminant(
    rows_of: Callable[[Observation, Workspace], Tensor],
    clients: Sequence[Client],
    work: Workspace,
) -> Callable[[Observation], Tensor] | None:
    """Return the log-likelihood ratio of each row of an upload: of a used token, or of another.

    None where the table is not in uploads. Rows of both are normal around their means, with
    covariances of rehearsed rows.
    """
    moments = []
    for used in (True, False):
        try:
            rows = torch.cat(
                [rows_of(it.observation, work)[(it.counts > 0) == used] for it in clients]
            )
        except NotApplicable:
            return None
        mean = rows.mean(dim=0)
        centred = rows - mean
        moments.append((mean, centred.T @ centred / max(1, len(rows))))
    ridge = RIDGE * float(moments[0][1].diagonal().mean()) + 1e-300
    eye = torch.eye(len(moments[0][0]), dtype=torch.float64)
    factors = [(mean, torch.linalg.cholesky(cov + ridge * eye)) for mean, cov in moments]

    def ratio(observation: Observation) -> Tensor:
        rows, logs = rows_of(observation, work), []
        for mean, factor in factors:
            white = torch.linalg.solve_triangular(factor, (rows - mean).T, upper=False)
            logs.append(-0.5 * white.square().sum(dim=0) - factor.diagonal().log().sum())
        return logs[0] - logs[1]

    return ratio


def _features(
    observation: Observation,
    work: Workspace,
    looks: Sequence[Callable[[Observation], Tensor] | None],
) -> Float[Tensor, "vocabulary features"]:
    """Return what the rows of each token show; NaN where a table is not in the upload."""
    moments = work.part(target_moments)
    unseen = torch.full_like(moments.rates, torch.nan)
    columns = [moments.rates.log()]
    columns += [unseen if look is None else look(observation) for look in looks]
    for name, what in ((find_tables(work).tokens, TOKEN_TABLE), (find_tables(work).head, HEAD)):
        try:
            rows = uploaded(observation, name, what).double()
        except NotApplicable:
            columns += [unseen] * (2 if what == HEAD else 1)
            continue
        sizes = rows.norm(dim=1)
        columns.append(sizes / sizes.mean())
        if what == HEAD:
            scaled = direction(observation) * rows / sizes.square().mean().sqrt()
            columns.append(shares(moments, Evidence(scaled)))
    return torch.stack(columns, dim=1)
