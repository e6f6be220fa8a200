"""A round of zeros before the first: a strategy that can only fail fails before training."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

import strategies
from fedsim.core.boundary import PASSING, explained
from fedsim.core.errors import ConfigError
from fedsim.core.wire import ARRAYS, METRICS, NUM_EXAMPLES, to_record
from fedsim.federation.grid import Job, SimulationGrid
from fedsim.run.prepare import Plan


def rehearse(plan: Plan) -> None:
    """Let the strategy aggregate a round of zeros, so that what can only fail fails now.

    Raises:
        ConfigError: It cannot aggregate that many uploads with its options.
    """
    federation = plan.config.federation
    strategy = strategies.build(federation, lr=plan.config.local.lr, buffers=())
    zeros = to_record({"zeros": torch.zeros(2)})

    def answer(jobs: Iterable[Job], timeout: float | None) -> Iterator[tuple[Message, Context]]:  # noqa: ARG001
        for message, context in jobs:
            metrics = MetricRecord({NUM_EXAMPLES: 1})
            content = RecordDict({ARRAYS: ArrayRecord(dict(zeros)), METRICS: metrics})
            yield Message(content, reply_to=message), context

    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    grid = SimulationGrid(federation.clients, answer, Path())
    reason = "none"
    try:
        with strategies.sampling(plan.config.seed, 0):
            messages = strategy.configure_train(1, zeros, ConfigRecord(), grid)
        if strategy.aggregate_train(1, grid.send_and_receive(messages))[0] is not None:
            return
    except PASSING:
        raise
    except BaseException as error:  # foreign code may want to end the process
        reason = explained(error)
    raise ConfigError(
        f"federation.strategy: '{federation.strategy}' must aggregate {federation.sampled} uploads "
        f"with options {federation.options}, got {reason}"
    )
