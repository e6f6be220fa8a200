"""A share: each record has the attribute with the probability that the secret names."""

from dataclasses import replace

import numpy as np
import torch
from torch import Generator, Tensor

from adversary.games import ceilings
from adversary.games.game import Draws, Game, Shift, draws_of
from adversary.games.records import Pool
from fedsim.core.secrets import Rules


def sample(pool: Pool, rules: Rules, secrets: Tensor, generator: Generator) -> Draws:
    """Draw every record with the attribute or without, by the secret's share."""
    shares = torch.tensor(rules.shares)[secrets]
    marked = torch.rand(len(secrets), rules.batch, generator=generator) < shares[:, None]
    rows = pool.drawn(marked.numel(), generator, mark=0).view_as(marked)
    rows[marked] = pool.drawn(int(marked.sum()), generator, mark=1)
    return draws_of(pool, rows, secrets)


def ceiling(rules: Rules, prior: float) -> float:  # noqa: ARG001
    """Return the mean over shares of the largest AUROC of each one against the rest."""
    counts = ceilings.share_counts(rules.batch, rules.shares)
    whole = np.sum(counts, axis=0)
    rests = [(whole - count) / (len(counts) - 1) for count in counts]
    pairs = zip(rests, counts, strict=True)
    return sum(ceilings.count_auroc(rest, count) for rest, count in pairs) / len(counts)


def information(rules: Rules, prior: float) -> float:  # noqa: ARG001
    """Return the bits that the number of records with the attribute tells."""
    return ceilings.count_information(ceilings.share_counts(rules.batch, rules.shares))


def merged_rounds(rules: Rules, rounds: int) -> Rules:
    """Return one round of as many records: counts of several rounds are one count."""
    return replace(rules, batch=rules.batch * rounds)


def shift(rules: Rules, rounds: int) -> Shift:
    """Return how many records two shares differ in, at least: the others may be the same.

    Records of several rounds are counted as if all were in one, which is further apart.
    """
    most = rules.batch * rounds
    differing = max(rules.shares) - min(rules.shares)
    return Shift(np.arange(most + 1.0), ceilings.share_counts(most, [differing])[0])


def impute(likelihoods: Tensor, rules: Rules) -> Tensor:
    """Return log p(records | share) for each share."""
    each = [torch.tensor([1 - share, share]).log() for share in rules.shares]
    return torch.stack([(likelihoods + at).logsumexp(dim=2).sum(dim=1) for at in each], dim=1)


GAME = Game(
    name="distribution",
    summary="which share of records has the property",
    sample=sample,
    classes=lambda rules: len(rules.shares),
    ceiling=ceiling,
    information=information,
    merged_rounds=merged_rounds,
    shift=shift,
    impute=impute,
)
