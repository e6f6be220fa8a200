"""Models that games and audits look at: trained on one party's records beforehand."""

import torch
from torch import nn

from adversary.games.records import Pool
from fedsim.core.rng import generator, global_stream
from fedsim.core.sgd import mean_gradient
from fedsim.core.types import LocalTraining, Params

TRAINED_WITH = 128  # records per step


def trained_states(
    model: nn.Module,
    pool: Pool,
    local: LocalTraining,
    *,
    seed: int,
    steps: int,
    every: int,
    rounds: int,
) -> tuple[Params, ...]:
    """Return the weights before every round, trained on private records.

    Args:
        model: Its weights are overwritten.
        pool: The records.
        local: Tells the learning rate.
        seed: Of the order of the records.
        steps: Before the first round.
        every: How many steps apart rounds are.
        rounds: How many rounds.
    """
    model.train()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    plain, stream = LocalTraining(local.lr, TRAINED_WITH), generator(seed, "game training")
    states = []
    with global_stream(seed, "game training", "dropout"):
        for round_ in range(rounds):
            for _ in range(every if round_ else steps):
                rows = torch.randint(len(pool.labels), (TRAINED_WITH,), generator=stream)
                inputs, labels = pool.inputs[rows], pool.labels[rows]
                gradient = mean_gradient(model, trained, inputs, labels, plain, stream)
                with torch.no_grad():
                    for value, slope in zip(trained.values(), gradient, strict=True):
                        value.sub_(local.lr * slope)
            states.append({name: value.clone() for name, value in model.state_dict().items()})
    return tuple(states)
