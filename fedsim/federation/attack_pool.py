"""Attacks and audits off the training path: in own processes, or on Ray where it runs already.

What a round's attacks and its audit answer depends on the recording, the truth and the config
alone, so that it is the same wherever they run.
"""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim import config as configs
from fedsim.audit.rounds import audit_round
from fedsim.core.errors import FedsimError, RunStopped, one_line
from fedsim.core.rows import Leak, Measure
from fedsim.run.attack_round import attack_round
from fedsim.run.prepare import Plan, prepare
from fedsim.run.run_folder import RunFolder


@dataclass(frozen=True)
class Attacked:
    """One round's ledger rows, metrics rows, answers by `attack/client`, and seconds."""

    leaks: list[Leak]
    measures: list[Measure]
    guesses: dict[str, Tensor]
    seconds: float


Collect = Callable[[], Attacked]
"""Waits for a round's attacks."""
Attack = Callable[[int], Collect]
"""Starts the attacks of a recorded round."""


@contextmanager
def attackers(plan: Plan, folder: RunFolder) -> Iterator[Attack]:
    """Start the processes that a config asks for, and stop them at the end.

    Without any, rounds are attacked when they are collected, in this process.
    """
    count = plan.config.engine.attackers
    if not count:
        yield lambda round_: lambda: _attacked(plan, folder, round_)
        return
    ray = sys.modules.get("ray")
    start = _on_ray if ray is not None and ray.is_initialized() else _in_processes
    text = configs.to_json(plan.config)
    with start(count) as submit:

        def attack(round_: int) -> Collect:
            try:
                future = submit(str(folder.path.absolute()), text, round_)
            except RuntimeError as error:  # the pool is broken: an earlier round says why
                future = Future()
                future.set_exception(error)
            return lambda: _collected(future, round_)

        yield attack


def _attacked(plan: Plan, folder: RunFolder, round_: int) -> Attacked:
    begun = time.perf_counter()
    leaks, measures, guesses = attack_round(plan, folder, round_)
    audited = audit_round(plan, folder, round_)
    return Attacked(
        leaks + audited.leaks,
        measures + audited.measures,
        {**guesses, **audited.scores},
        time.perf_counter() - begun,
    )


Sent = tuple[list[Leak], list[Measure], dict[str, NDArray[Any]], float]


def _work(path: str, text: str, round_: int) -> Sent:
    """Attack one round in this process; tensors go back as arrays."""
    plan = _plan(text)
    torch.set_num_threads(plan.config.engine.threads)  # sums depend on it
    attacked = _attacked(plan, RunFolder(Path(path)), round_)
    arrays = {name: value.numpy() for name, value in attacked.guesses.items()}
    return attacked.leaks, attacked.measures, arrays, attacked.seconds


@lru_cache(maxsize=1)
def _plan(text: str) -> Plan:
    return prepare(configs.parse_json(text))


def _collected(future: Future, round_: int) -> Attacked:
    try:
        leaks, measures, arrays, seconds = future.result()
    except FedsimError:
        raise
    except Exception as error:  # whatever a process can die of
        raise RunStopped(f"round {round_}: attacks must finish ({one_line(error)})") from None
    return Attacked(leaks, measures, _tensors(arrays), seconds)


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}


@contextmanager
def _in_processes(count: int) -> Iterator[Callable[..., Future]]:
    spawn = multiprocessing.get_context("spawn")  # a copy of a process with threads may hang
    pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=_end_with_parent)
    try:
        yield lambda *arguments: pool.submit(_work, *arguments)
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Leave no process behind where the one that asked for it is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _on_ray(_: int) -> Iterator[Callable[..., Future]]:
    from fedsim.core.ray_jobs import ray

    task = ray.remote(num_cpus=0, max_retries=0)(_work)  # as many at a time as are asked for
    yield lambda *arguments: task.remote(*arguments).future()
