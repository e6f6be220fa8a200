"""The records of the two parties of a game: who has which, with their marks."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from adversary.games.predictors import VALIDATION
from adversary.games.records import Pool
from adversary.games.stand_ins import fitting
from defenses import Marked
from fedsim import data
from fedsim.config import Config
from fedsim.config import Game as Section
from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from fedsim.run import overlap
from fedsim.run.secret_columns import encoding, marks, telling_features

STAND_INS = 12  # defenders that the adversary rehearses, of a defense with records of its own


def federated_records(config: Config) -> data.Federated:
    """Return the challenger's records as one client's, and the adversary's, which are disjoint."""
    alone = config.federation.model_copy(update={"clients": 1})
    shared = config.auxiliary.model_copy(update={"share": config.auxiliary.share or 0.1})
    federated = data.federate(config.model_copy(update={"federation": alone, "auxiliary": shared}))
    rows = _auxiliary_rows(config.game, federated.dataset, federated.auxiliary, config.seed)
    return replace(federated, auxiliary=rows)


def _auxiliary_rows(section: Section, dataset: data.Dataset, rows: Tensor, seed: int) -> Tensor:
    """Return the rows that the adversary has: some, or with another distribution of labels."""
    stream = generator(seed, "game auxiliary")
    if section.shift:
        first = dataset.labels[rows] == 0
        rows = rows[~first | (torch.rand(len(rows), generator=stream) >= section.shift)]
    if section.auxiliary is not None:
        rows = rows[torch.randperm(len(rows), generator=stream)[: section.auxiliary]]
    return rows


def pools(config: Config, federated: data.Federated) -> tuple[Pool, Pool]:
    """Return the challenger's records and the adversary's, with their marks."""
    section, dataset, coded = config.game, federated.dataset, None
    telling: frozenset[int] = frozenset()
    if section.column is None:
        marked = torch.zeros(len(dataset.labels), dtype=torch.int64)
    else:
        marked = marks(section, dataset, users="user" in section.play)
        coded = encoding(section, dataset)
        telling = telling_features(section, dataset)
    overlap.check(federated, allowed=config.auxiliary.overlap, seed=config.seed)
    private, auxiliary = (
        Pool(dataset.inputs[rows], dataset.y[rows], marked[rows], coded, telling=telling)
        for rows in (federated.clients[0], federated.auxiliary)
    )
    _check_pool(section, private, "private")
    _check_pool(section, auxiliary, "auxiliary")
    return private, auxiliary


def set_aside(config: Config, pool: Pool) -> tuple[Marked, Pool]:
    """Return a share of the client's records with their marks, and the others.

    Raises:
        ConfigError: The share has records of one mark alone, or too few are left to play with.
    """
    count = len(pool.labels)
    order = torch.randperm(count, generator=generator(config.seed, "game defender", "private"))
    cut = round(config.game.defender * count)
    marked, rest = _marked(pool, order[:cut].sort().values), _without(pool, order[:cut])
    _check_pool(config.game, rest, "private")
    if len(marked.marks.unique()) < 2:
        raise ConfigError(
            f"game.defender: must set aside private records with two values of the secret, "
            f"got {cut} of one"
        )
    return marked, rest


def defenders(config: Config, pool: Pool, size: int) -> Iterator[tuple[Marked, Pool]]:
    """Yield the adversary's records for each stand-in's defense, and those of its trials.

    Stand-ins that predictors are chosen on have records of one half of the adversary's, the others
    of the other half: what is read off the latter's defenses only is then not chosen. What is
    fitted to n records varies by V/n about the truth. The client's has n, and lies V/n + V/F from
    the mean of stand-ins that know F others. So far from it are those fitted to samples with
    repetition of n F/(n + F) of these, and to n records of the other half.

    Args:
        config: With the seed.
        pool: The adversary's.
        size: n, of the client's defense.
    """
    count = len(pool.labels)
    order = torch.randperm(count, generator=generator(config.seed, "game defender", "auxiliary"))
    halves, fitted = order.chunk(2), fitting(STAND_INS, 1 - VALIDATION)
    for place in range(STAND_INS):
        stream, half = generator(config.seed, "game stand-in", place), halves[place >= fitted]
        if place < fitted:
            sample = max(2, round(size * len(half) / (size + len(half))))
            rows = half[torch.randint(len(half), (sample,), generator=stream)]
        else:
            rows = half[torch.randperm(len(half), generator=stream)[:size]]
        rest = _without(pool, rows)
        _check_pool(config.game, rest, "auxiliary")
        yield _marked(pool, rows), rest


def _marked(pool: Pool, rows: Tensor) -> Marked:
    return Marked(pool.inputs[rows], pool.labels[rows], pool.marks[rows])


def _without(pool: Pool, rows: Tensor) -> Pool:
    """Return the records of a pool but some."""
    left = torch.ones(len(pool.labels), dtype=torch.bool)
    left[rows] = False
    return replace(pool, inputs=pool.inputs[left], labels=pool.labels[left], marks=pool.marks[left])


def _check_pool(section: Section, pool: Pool, whose: str) -> None:
    values = range(section.users) if "user" in section.play else (0, 1)
    for mark in () if section.column is None else values:
        if not bool((pool.marks == mark).any()):
            raise ConfigError(
                f"game: {whose} records must have every value of the secret, got none of {mark}"
            )
    if "attribute-known" in section.play and pool.encoding is None:
        raise ConfigError(
            f"game.column: must be a categorical input for attribute-known, got '{section.column}'"
        )
