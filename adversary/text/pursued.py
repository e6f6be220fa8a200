"""Tokens and their positions, pursued in what a client's uploads show of its first layer."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adversary.steps import num_steps
from adversary.text.dictionary import Dictionary, dictionary
from adversary.text.layers import Layers, layers_of
from adversary.text.noise import added_noise, whitened
from adversary.text.pursuit import Picks, Rules, pursue
from adversary.text.row_bayes import noise_variance
from adversary.text.rows import moved
from adversary.text.sites import Site
from adversary.text.tables import Tables, find_tables
from adversary.workspace import Workspace, evaluating
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, Observation

DOUBT = 2.0  # standard errors by which a measured standard deviation may be too small
PSEUDO = 0.3  # count of a token that the auxiliary texts do not hold


@dataclass(frozen=True, eq=False)
class Pursued:
    """What pursuit answers.

    Attributes:
        pairs: (token, position), in the order in which they were picked.
        placed: Whether the first layer sees positions; without, all positions are 0.
        explained: Whether they leave no more than noise of the measurements.
        rank: Number of directions measured.
    """

    pairs: Int[Tensor, "n 2"]
    placed: bool
    explained: bool
    rank: int

    def choices(self, length: int) -> list[list[int]]:
        """Return the tokens of each position, in the order in which they were picked."""
        tokens: list[list[int]] = [[] for _ in range(length)]
        for token, position in self.pairs.tolist():
            tokens[position].append(token)
        return tokens


def measured(observation: Observation, work: Workspace) -> Float[Tensor, "rows width"]:
    """Return the directions that an upload shows of its first layer, in units of their noise.

    Args:
        observation: Of one client.
        work: Of the observation.

    Raises:
        NotApplicable: The model has no such layer, or the upload does not hold it.
    """
    site = work.part(layers_of).first_in(observation.update.delta)
    noise = noise_of(observation, work, site, find_tables(work))
    return whitened(observation, site, steps=_steps(observation), noise=noise)


def pursued(
    latest: Observation, rows: Float[Tensor, "rows width"], work: Workspace, *, texts: int | None
) -> Pursued:
    """Return the (token, position) pairs that explain what uploads show of the first layer.

    Args:
        latest: The latest of one client's.
        rows: What `measured` returns of each, all with the same first-layer inputs.
        work: Of the latest.
        texts: Number of texts; None where it is not known.

    Raises:
        NotApplicable: The model has no such layer, or no upload holds it.
    """
    layers, tables = work.part(layers_of), find_tables(work)
    site = layers.first_in(latest.update.delta)
    if not len(rows):
        return Pursued(torch.zeros(0, 2, dtype=torch.long), placed=True, explained=True, rank=0)
    words = work.part(words_of, site, tuple(candidates(latest, work, tables).tolist()), keep=2)
    picks = _picks(rows, words, work.auxiliary, texts, layers)
    placed = words.positions > 1
    return Pursued(words.pairs(picks.atoms), placed, picks.explained, picks.rank)


def candidates(observation: Observation, work: Workspace, tables: Tables) -> Int[Tensor, " tokens"]:
    """Return the tokens that the client can have used: those whose rows moved, all if unknown."""
    name, delta = tables.tokens, observation.update.delta
    assert work.auxiliary.vocabulary is not None
    everything = torch.arange(len(work.auxiliary.vocabulary))
    if tables.tied or name not in delta:
        return everything
    rows = moved(delta[name], observation.sent[name]).rows.nonzero().flatten()
    return rows if len(rows) else everything


def words_of(work: Workspace, site: Site, tokens: tuple[int, ...]) -> Dictionary:
    """Return a site's vectors of some tokens at every position: a part of the workspace."""
    length = work.part(layers_of).length
    with evaluating(work, work.sent) as model:
        return dictionary(model, site, torch.tensor(tokens), length)


def noise_of(observation: Observation, work: Workspace, site: Site, tables: Tables) -> float:
    """Return the standard deviation of a defense's noise on each entry of a site's rows.

    From the defense where it is known; else from the columns of the head's gradient, where that is
    uploaded and not the token table too; else 0.
    """
    delta = observation.update.delta
    if work.auxiliary.defense is not None:
        return added_noise(
            work.auxiliary, delta, [it.name for it in site.weights if it.name in delta]
        )
    if tables.head is None or tables.tied or tables.head not in delta:
        return 0.0
    head = delta[tables.head]
    return noise_variance(head) ** 0.5 * (1 + DOUBT / (2 * head.shape[1]) ** 0.5)


def is_frozen(observation: Observation, tables: Tables) -> bool:
    """Return whether what the first layer takes of each token stays the same over rounds."""
    return tables.tokens not in observation.update.delta


def _steps(observation: Observation) -> int:
    if observation.update.num_examples is None:
        return observation.local.epochs
    return num_steps(observation)


def _picks(
    rows: Float[Tensor, "rows width"],
    words: Dictionary,
    auxiliary: Auxiliary,
    texts: int | None,
    layers: Layers,
) -> Picks:
    places = torch.arange(len(words.tokens) * words.positions)
    prior = _log_prior(auxiliary)[words.tokens].repeat_interleave(words.positions)
    most = None if texts is None else texts * layers.length
    placed = words.positions > 1
    rules = Rules(
        prior=prior,
        groups=places % words.positions if placed else None,
        limit=texts if placed else None,
        most=most,
    )
    return pursue(rows, words.vectors.flatten(0, 1), rules)


def _log_prior(auxiliary: Auxiliary) -> Float[Tensor, " vocabulary"]:
    """Return the log-probability of each token in auxiliary text; the same for all without any."""
    assert auxiliary.vocabulary is not None
    counts = torch.full((len(auxiliary.vocabulary),), PSEUDO, dtype=torch.float64)
    if auxiliary.inputs is not None:
        used = auxiliary.inputs.flatten().long()
        counts += torch.bincount(used[used != auxiliary.vocabulary.pad], minlength=len(counts))
    return (counts / counts.sum()).log()


def check_one_client(observation: Observation) -> None:
    """Refuse a sum over clients.

    Raises:
        NotApplicable: It is one.
    """
    if (clients := observation.update.num_clients) > 1:
        raise NotApplicable(f"num_clients: must be 1 to recover texts, got {clients}")
