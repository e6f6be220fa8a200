"""Models that games and audits look at: trained on one party's records beforehand."""

import copy
import math

import torch
from torch import Generator, Tensor, nn

from adversary.games.records import Pool
from defenses import Defense
from fedsim.core.errors import RunStopped
from fedsim.core.form import IGNORED
from fedsim.core.params import not_finite
from fedsim.core.rng import generator, global_stream
from fedsim.core.sgd import mean_gradient
from fedsim.core.types import LocalTraining, Params

TRAINED_WITH = 128  # records per step
TESTED = 4096  # records at once


def trained_states(
    model: nn.Module,
    pool: Pool,
    local: LocalTraining,
    *,
    seed: int,
    steps: int,
    every: int,
    rounds: int,
    defense: Defense | None = None,
) -> tuple[Params, ...]:
    """Return the weights before every round, trained on private records.

    A step is a round of FedSGD with one client: under a defense its gradient is the defense's own,
    and is uploaded through it.

    Args:
        model: Its weights are overwritten.
        pool: The records.
        local: Tells the learning rate.
        seed: Of the order of the records.
        steps: Before the first round.
        every: How many steps apart rounds are.
        rounds: How many rounds.
        defense: The client's.

    Raises:
        RunStopped: Training diverges.
    """
    model.train()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    stream, states = generator(seed, "game training"), []
    before = copy.deepcopy(model.state_dict())
    step = _Step(model, trained, LocalTraining(local.lr, TRAINED_WITH, upload="gradient"), defense)
    with global_stream(seed, "game training", "dropout"):
        for round_ in range(rounds):
            for _ in range(every if round_ else steps):
                rows = torch.randint(len(pool.labels), (TRAINED_WITH,), generator=stream)
                step(pool.inputs[rows], pool.labels[rows], stream)
            if not_finite(model.state_dict(), before):
                raise RunStopped(
                    "local.lr: must keep the model's weights finite while it trains, "
                    f"got {local.lr:g}"
                )
            states.append({name: value.clone() for name, value in model.state_dict().items()})
    return tuple(states)


class _Step:
    """A step down the gradient that a client uploads; its defense remembers what it must."""

    def __init__(
        self, model: nn.Module, trained: Params, local: LocalTraining, defense: Defense | None
    ) -> None:
        self.model, self.trained, self.local, self.defense = model, trained, local, defense
        self.state = {} if defense is None else defense.init(trained)

    def __call__(self, inputs: Tensor, labels: Tensor, stream: Generator) -> None:
        gradient = (self.defense and self.defense.gradient) or mean_gradient
        slopes = gradient(self.model, self.trained, inputs, labels, self.local, stream)
        upload = dict(zip(self.trained, (slope.detach() for slope in slopes), strict=True))
        if self.defense is not None:
            upload, self.state = self.defense.apply(upload, self.state, stream)
        with torch.no_grad():
            for name, value in self.trained.items():
                value.sub_(self.local.lr * upload[name])


def accuracy(model: nn.Module, state: Params, inputs: Tensor, labels: Tensor) -> float:
    """Return the share of records that a model at these weights classifies right; NaN of none.

    Of a language model it is the share of next tokens.
    """
    working = copy.deepcopy(model).eval()
    working.load_state_dict(dict(state))
    if not len(labels):
        return math.nan
    with torch.no_grad(), global_stream(0, "task accuracy"):
        batches = zip(inputs.split(TESTED), labels.split(TESTED), strict=True)
        right = sum(int((working(x).argmax(dim=1) == y).sum()) for x, y in batches)
    return right / int((labels != IGNORED).sum())
