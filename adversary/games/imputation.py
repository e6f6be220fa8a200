"""Imputation: who reads the records, but neither the secret column nor any upload.

B. Jayaraman, D. Evans, "Are attribute inference attacks just imputation?", CCS 2022: what other
columns say of the secret is not leaked by training. Here by logistic regression of the mark on a
record's inputs and label, fitted on the adversary's own records.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adversary.games.game import Game, draw_secrets
from adversary.games.records import Pool
from adversary.games.scores import Measured, auroc_of
from fedsim.core.rng import generator
from fedsim.core.secrets import Rules

FITTED = 4000  # records, at most


Reader = Callable[[Tensor, Tensor], Tensor]
"""Records, their labels → log p(record | mark), up to a constant of the record, (n, marks)."""


def imputation(
    game: Game, rules: Rules, private: Pool, read: Reader, *, trials: int, seed: int = 0
) -> Measured:
    """Return the AUROC of the secret of a batch whose records are read, less the secret column.

    Args:
        game: Which.
        rules: What it leaves open.
        private: Records of the trials.
        read: What a record says of its mark.
        trials: How many.
        seed: Of everything drawn.

    Raises:
        ValueError: A fair coin sets the game's secret.
    """
    if game.impute is None:
        raise ValueError(f"game: must have a secret that records say, got {game.name}")
    secrets = draw_secrets(trials, game.classes(rules), generator(seed, "imputed secrets"))
    draws = game.sample(private, rules, secrets, generator(seed, "imputed"))
    rows = read(draws.inputs.flatten(0, 1), draws.labels.flatten())
    return auroc_of(game.impute(rows.unflatten(0, draws.labels.shape), rules), secrets)


@dataclass(frozen=True)
class _Columns:
    """What is read of a record: its inputs less those that say the mark, and its label."""

    kept: Tensor
    labels: int

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        coded = functional.one_hot(labels.clamp(max=self.labels - 1), self.labels)
        return torch.cat([inputs.flatten(1)[:, self.kept], coded], dim=1).float()


def reader(pool: Pool, *, seed: int = 0) -> Reader:
    """Learn what records say of their marks, from a pool."""
    from sklearn.linear_model import LogisticRegression

    rows = torch.nonzero(pool.marks >= 0)[:, 0]
    order = torch.randperm(len(rows), generator=generator(seed, "imputation"))
    rows = rows[order[:FITTED]]
    marks, size = pool.marks[rows], pool.inputs[0].numel()
    columns = _Columns(
        torch.tensor([i for i in range(size) if i not in pool.telling]), int(pool.labels.max()) + 1
    )
    table = columns(pool.inputs[rows], pool.labels[rows])
    mean, std = table.mean(dim=0), table.std(dim=0).clamp(min=1e-6)
    fit = LogisticRegression(solver="newton-cholesky").fit(
        ((table - mean) / std).numpy(), marks.numpy()
    )
    priors = torch.as_tensor(np.bincount(marks.numpy()) / len(marks)).log()

    def read(inputs: Tensor, labels: Tensor) -> Tensor:
        scaled = ((columns(inputs, labels) - mean) / std).numpy()
        shares = torch.full((len(labels), len(priors)), -torch.inf, dtype=torch.float64)
        fitted = torch.as_tensor(fit.predict_log_proba(scaled)).double()
        shares[:, torch.as_tensor(fit.classes_)] = fitted
        return shares - priors

    return read
