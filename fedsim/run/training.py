"""Models that games and audits look at: trained on one party's records beforehand."""

import torch
from torch import nn

from adversary.games.records import Pool
from fedsim.config import Config
from fedsim.core.rng import generator
from fedsim.core.sgd import mean_gradient
from fedsim.core.types import LocalTraining, Params

TRAINED_WITH = 128  # records per step


def trained_states(config: Config, model: nn.Module, pool: Pool) -> tuple[Params, ...]:
    """Return the weights before every round: trained on private records, `every` steps apart."""
    model.train()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    local, stream = config.local_training(), generator(config.seed, "game training")
    plain = LocalTraining(local.lr, TRAINED_WITH)
    states = []
    for round_ in range(max(config.game.rounds)):
        for _ in range(config.game.every if round_ else config.game.steps):
            rows = torch.randint(len(pool.labels), (TRAINED_WITH,), generator=stream)
            found = mean_gradient(
                model, trained, pool.inputs[rows], pool.labels[rows], plain, stream
            )
            with torch.no_grad():
                for value, slope in zip(trained.values(), found, strict=True):
                    value.sub_(local.lr * slope)
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    return tuple(states)
